#include "tally/recsys/run/run_data.h"

#include "tally/recsys/data/titles.h"

namespace tally::recsys {

ReadOptions read_options(const DataConfig& given) {
  const DataConfig config = resolved(given);
  ReadOptions options;
  options.format = config.readers.at(config.format).format;
  if (!config.separator.empty()) {
    // Fields between commas or semicolons may be quoted; text between tabs, spaces and the like stands for itself.
    options.format.separator = config.separator;
    options.format.quoted = config.separator == "," || config.separator == ";";
  }
  if (!config.columns.empty()) options.format.columns = config.columns;
  options.user_column = config.user_column;
  options.item_column = config.item_column;
  options.rating_column = config.rating_column;
  options.order_column = config.order_column;
  options.order.ties = config.tie_rule;
  options.order.tie_seed = static_cast<std::uint64_t>(config.tie_seed);
  options.order.duplicates = config.duplicates;
  options.min_rating = config.min_rating;
  options.bad_rows = config.bad_rows;
  return options;
}

HistoryOptions history_options(const DataConfig& config) {
  ReadOptions read = read_options(config);
  HistoryOptions options;
  options.format = std::move(read.format);
  options.user_column = std::move(read.user_column);
  options.item_column = std::move(read.item_column);
  options.rating_column = std::move(read.rating_column);
  options.order_column = std::move(read.order_column);
  options.order = read.order;
  options.min_rating = read.min_rating;
  options.bad_rows = read.bad_rows;
  return options;
}

FilterOptions filter_options(const DataConfig& config) {
  return {.users = CountIntervals::parse(config.user_inter_num_interval),
          .items = CountIntervals::parse(config.item_inter_num_interval),
          .core = config.core};
}

std::string data_rules(const DataConfig& given) {
  const DataConfig config = resolved(given);
  std::string rules = "events by " + (config.order_column.empty() ? "place in the file" : config.order_column);
  if (!config.order_column.empty()) rules += ", equal ones by " + std::string(word_of(config.tie_rule));
  if (!config.order_column.empty() && config.tie_rule == TieRule::random)
    rules += '(' + std::to_string(config.tie_seed) + ')';
  if (config.duplicates != Duplicates::keep) {
    rules += detail::join(", ", word_of(config.duplicates), " of repeated items");
  }
  if (config.min_rating) rules += ", ratings from " + Json(*config.min_rating).dump();
  const FilterOptions filters = filter_options(config);
  if (!filters.users.is_everything()) rules += ", users of " + config.user_inter_num_interval + " events";
  if (!filters.items.is_everything()) rules += ", items of " + config.item_inter_num_interval + " events";
  if (!filters.users.is_everything() || !filters.items.is_everything())
    rules += detail::join(" (", word_of(config.core), ')');
  return rules;
}

namespace {

LeaveOneOutOptions split_options(const DataConfig& config) {
  return {.validation = config.validates(), .min_length = config.min_length, .short_users = config.short_users};
}

}  // namespace

std::string RunData::label(std::int32_t item) const {
  const std::string id(interactions->items.name(item));
  const auto found = titles.find(id);
  return found == titles.end() ? id : found->second;
}

RunData read_run_data(const DataConfig& config, const StopRequested& stop_requested) {
  RunData data;
  ReadOptions options = read_options(config);
  options.stop_requested = stop_requested;
  Interactions read = read_interactions(config.path, options, &data.report);
  check_stop(stop_requested, config.path);
  data.interactions =
      std::make_unique<const Interactions>(filter_by_counts(std::move(read), filter_options(config), &data.filters));
  check<IoError>(data.interactions->size() > 0, config.path, "has no event that the filters leave");
  data.split = std::make_unique<const Split>(leave_one_out(*data.interactions, split_options(config)));
  data.hash = content_hash(*data.interactions);
  if (!config.titles.empty()) {
    TitleOptions titles = title_options_of(config.titles);
    titles.stop_requested = stop_requested;
    data.titles = read_titles(config.titles, titles);
  }
  return data;
}

RunData load_run_data(const DataConfig& config, const StopRequested& stop_requested) {
  RunData data = read_run_data(config, stop_requested);
  check<IoError>(!data.split->targets(Part::test).empty(), config.path, "has no user with ", config.min_length,
                 " events or more: nothing could be evaluated");
  return data;
}

void renumber(RunData& data, const DataConfig& config, const IdMap& users, const IdMap& items) {
  if (data.interactions->users == users && data.interactions->items == items) return;
  auto interactions = std::make_unique<const Interactions>(renumbered(*data.interactions, users, items));
  data.split = std::make_unique<const Split>(leave_one_out(*interactions, split_options(config)));
  data.interactions = std::move(interactions);
}

}  // namespace tally::recsys
