#include "tally/recsys/run/run_data.h"

#include "tally/recsys/data/titles.h"

namespace tally::recsys {
namespace {

ReadOptions read_options(const DataConfig& config) {
  ReadOptions options;
  // Fields of comma-separated files may be quoted; tabs need no quotes.
  options.format = {.separator = config.separator, .quoted = config.separator != "\t", .columns = {}};
  options.user_column = config.user_column;
  options.item_column = config.item_column;
  options.rating_column = config.rating_column;
  options.order_column = config.order_column;
  options.order.ties = config.tie_rule == "item_id" ? TieRule::item_id : TieRule::file_order;
  options.order.duplicates = config.duplicates == "first"  ? Duplicates::first
                             : config.duplicates == "last" ? Duplicates::last
                                                           : Duplicates::keep;
  if (config.min_rating != 0) options.min_rating = config.min_rating;
  options.bad_rows = config.bad_rows == "skip" ? BadRows::skip : BadRows::error;
  return options;
}

LeaveOneOutOptions split_options(const DataConfig& config) {
  return {.validation = config.split == "leave_one_out",
          .min_length = config.min_length,
          .short_users = config.short_users == "drop" ? ShortUsers::drop : ShortUsers::train};
}

}  // namespace

std::string RunData::label(std::int32_t item) const {
  const std::string id(interactions->items.name(item));
  const auto found = titles.find(id);
  return found == titles.end() ? id : found->second;
}

RunData load_run_data(const DataConfig& config) {
  RunData data;
  data.interactions =
      std::make_unique<const Interactions>(read_interactions(config.path, read_options(config), &data.report));
  data.split = std::make_unique<const Split>(leave_one_out(*data.interactions, split_options(config)));
  check<IoError>(!data.split->targets(Part::test).empty(), config.path, "has no user with ", config.min_length,
                 " events or more: nothing could be evaluated");
  data.hash = content_hash(*data.interactions);
  if (!config.titles.empty()) data.titles = read_titles(config.titles);
  return data;
}

}  // namespace tally::recsys
