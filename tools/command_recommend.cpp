// tally recommend: items for a history, for the histories of a file, for users of the run, or for users whose events
// come through a pipe.
#include <fmt/format.h>

#include <algorithm>

#include "tally/core/io/file.h"
#include "tally/recsys/data/event_fields.h"
#include "tally/recsys/data/histories.h"
#include "tally/recsys/data/item_lists.h"
#include "tally/recsys/run/run_data.h"
#include "tally/recsys/serving/recommender.h"
#include "tools/commands.h"
#include "tools/print.h"
#include "tools/recommendation_rows.h"
#include "tools/stream_recommendations.h"

namespace tally::tools {
namespace {

using namespace recsys;

struct Options {
  std::string directory, history, times, input, items, exclude, out;
  std::vector<std::string> users;
  std::string unknown_items = "error", bad_lines = "error", answer = "events", state;
  std::int64_t k = 10, max_sessions = 0;
  bool filter_seen = true, stream = false;

  UnknownItems unknown() const { return unknown_items == "skip" ? UnknownItems::skip : UnknownItems::error; }
};

/// Says on the error stream what a file had that the model has not.
void report_unknown(std::int64_t rows, const std::vector<std::string>& messages) {
  if (rows == 0) return;
  complain(detail::join("left out: ", rows, " rows with items that the model was not trained with\n"));
  for (const std::string& message : messages) complain(detail::join("  ", message, '\n'));
}

ItemLists item_lists(const Recommender& from, const std::string& path, UnknownItems unknown) {
  ItemLists lists = read_item_lists(path, from.items.ids, from.data.user_column, from.data.item_column, unknown);
  report_unknown(lists.unknown_items, lists.unknown_messages);
  return lists;
}

/// Recommends to `histories` of the users named, under --items and --exclude.
std::vector<Recommendation> recommend_to(const Recommender& from, const Options& options, const Sequences& histories,
                                         const std::vector<std::string>& users) {
  std::vector<std::uint8_t> among;
  if (!options.items.empty()) {
    const ItemLists chosen = item_lists(from, options.items, options.unknown());
    check<ConfigError>(chosen.of_user.empty(), "--items", "needs one list of items for all users; got one with users");
    among.assign(static_cast<std::size_t>(from.items.size()), 0);
    for (const std::int32_t item : chosen.of_all) among[static_cast<std::size_t>(item)] = 1;
  }
  std::vector<std::vector<std::int32_t>> left_out;
  if (!options.exclude.empty()) {
    const ItemLists lists = item_lists(from, options.exclude, options.unknown());
    for (const std::string& user : users) left_out.push_back(lists.of(user));
  }
  return from.recommend(histories, {.k = options.k,
                                    .seen = options.filter_seen ? SeenFilter::full : SeenFilter::none,
                                    .candidates = among,
                                    .left_out = left_out});
}

/// The parts of a text between commas.
std::vector<std::string> between_commas(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::vector<double> times_of_history(const std::string& text) {
  std::vector<double> times;
  for (const std::string& part : between_commas(text)) {
    const std::string_view fault = read_time(part, times.emplace_back());
    check<ConfigError>(fault.empty(), "--times", "needs a time ", fault, "; got '", beginning_of(part), "'");
  }
  return times;
}

/// A table of the items for one history.
std::string recommend_for_history(const Recommender& from, const Options& options) {
  std::vector<std::int32_t> history;
  for (const std::string& id : between_commas(options.history)) {
    const auto item = from.items.ids.find(id);
    check<ConfigError>(item.has_value(), "--history", "item '", id, "' is not in ", from.source);
    history.push_back(*item);
  }
  const std::vector<double> times = times_of_history(options.times);
  check<ConfigError>(times.empty() || times.size() == history.size(), "--times", "needs one of each of the ",
                     history.size(), " events of --history; got ", times.size());
  check<ConfigError>(!from.reads_times || times.size() == history.size(), "--times",
                     "is needed with --history: the model reads when events were");
  const std::span<const std::int32_t> events(history);
  const std::span<const double> moments(times);
  const auto lists =
      recommend_to(from, options, pack(std::span(&events, 1), std::span(&moments, times.empty() ? 0 : 1)), {""});
  std::string text = "rank\titem_id\tscore\ttitle\tranker\n";
  for (std::size_t r = 0; r < lists[0].items.size(); ++r) {
    const auto& [item, score] = lists[0].items[r];
    text += fmt::format("{}\t{}\t{:g}\t{}\t{}\n", r + 1, from.items.ids.name(item), score,
                        in_one_cell(from.items.label(item)), ranker_of(lists[0]));
  }
  return text;
}

/// A table of the items for every user of a file, or for some of the run's, in their order.
std::string recommend_for_users(const Recommender& from, const Options& options) {
  Sequences histories;
  std::vector<std::string> users;
  if (options.users.empty()) {
    HistoryOptions reading = history_options(from.data);
    reading.unknown = options.unknown();
    Histories read = read_histories(options.input, from.items.ids, reading);
    report_unknown(read.unknown_items, read.unknown_messages);
    for (std::int32_t user = 0; user < read.users.size(); ++user) users.emplace_back(read.users.name(user));
    histories = std::move(read.sequences);
  } else {
    const RunUsers known = from.read_users();
    std::vector<std::span<const std::int32_t>> chosen;
    std::vector<std::span<const double>> times;
    for (const std::string& user : options.users) {
      const auto index = known.ids.find(user);
      check<ConfigError>(index.has_value(), "--user", "user '", user, "' is not in ", from.source);
      chosen.push_back(known.histories->sequence(*index));
      if (known.histories->times.defined()) times.push_back(known.histories->times_of(*index));
    }
    users = options.users;
    histories = pack(chosen, times);
  }
  const auto lists = recommend_to(from, options, histories, users);
  std::string text = recommendation_head(from);
  for (std::size_t user = 0; user < lists.size(); ++user) text += recommendation_rows(from, users[user], lists[user]);
  return text;
}

}  // namespace

void add_recommend(CLI::App& app, const CommandContext& context) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("recommend", "Recommend items for histories, of users known or not");
  command->add_option("run", options->directory, "Run directory, or one that compress wrote; the data are not needed")
      ->required();
  CLI::Option* history =
      command->add_option("--history", options->history, "Item ids, oldest first, separated by commas; may be empty")
          ->type_name(kListType);
  command
      ->add_option("--times", options->times,
                   "With --history: when its events were, in the unit of the run's data, separated by commas; for "
                   "models that read times")
      ->type_name(kListType)
      ->needs(history);
  command->add_option("--input", options->input,
                      "File of histories in the form and order of time of the run's data, or with a header line that "
                      "names user_id and item_id; plain or gzip'd; - for standard input");
  command->add_option("--user", options->users, "A user of the run, by the history that it kept; may be repeated")
      ->allow_extra_args(false);
  command->add_option("--items", options->items, "File of the items to choose from");
  command->add_option("--exclude", options->exclude,
                      "File of items that are not recommended: one list, or with users beside the items one a user");
  command
      ->add_option("--unknown-items", options->unknown_items,
                   "error or skip: items of --input, --items and --exclude that the model has not")
      ->check(CLI::IsMember({"error", "skip"}));
  command->add_option("--k", options->k, "Number of items");
  command->add_flag("--filter-seen,!--no-filter-seen,!--keep-seen", options->filter_seen,
                    "Leave out the items of the history (the default)");
  command->add_option("--out", options->out, "File to write, whole or not at all (default: standard output)");
  CLI::Option* stream = command->add_flag(
      "--stream", options->stream,
      "Read events `user TAB item` or `user TAB item TAB time` from standard input and answer each at once; `user TAB "
      "?` asks without an event");
  command->add_option("--answer", options->answer, "With --stream, events or queries: lines that are answered")
      ->check(CLI::IsMember({"events", "queries"}))
      ->needs(stream);
  command->add_option("--state", options->state, "With --stream: directory of the users' states, read and written")
      ->needs(stream);
  command
      ->add_option("--bad-lines", options->bad_lines, "With --stream, error or skip: lines that cannot be understood")
      ->check(CLI::IsMember({"error", "skip"}))
      ->needs(stream);
  command
      ->add_option("--max-sessions", options->max_sessions,
                   "With --stream: number of users beyond which the tenth that is the longest unused is forgotten")
      ->check(CLI::PositiveNumber)
      ->needs(stream);
  command->callback([=] {
    check<ConfigError>(options->k >= 1, "--k", "needs at least 1; got ", options->k);
    const bool one_history = command->count("--history") > 0;
    check<ConfigError>(
        one_history + (command->count("--input") > 0) + (command->count("--user") > 0) + options->stream == 1,
        "recommend", "needs --history, --input, --user or --stream, one of the four");
    for (const char* option : {"--out", "--items", "--exclude"}) {
      check<ConfigError>(!options->stream || command->count(option) == 0, option, "does not go with --stream");
    }
    const Recommender from = open_recommender(options->directory, context.tables);
    if (options->stream) {
      context.exit_code = stream_recommendations(from, {.k = options->k,
                                                        .filter_seen = options->filter_seen,
                                                        .answer_events = options->answer == "events",
                                                        .skip_bad_lines = options->bad_lines == "skip",
                                                        .max_sessions = options->max_sessions,
                                                        .state = options->state});
      return;
    }
    const std::string text = one_history ? recommend_for_history(from, *options) : recommend_for_users(from, *options);
    if (options->out.empty()) {
      print(text);
    } else {
      write_file_atomically(options->out, text);
    }
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
