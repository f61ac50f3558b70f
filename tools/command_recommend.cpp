// tally recommend: items for a history, for the histories of a file, or for users whose events come through a pipe.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>

#include "tally/core/file.h"
#include "tally/recsys/data/file_forms.h"
#include "tally/recsys/data/histories.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tools/commands.h"
#include "tools/recommendation_rows.h"
#include "tools/recommender.h"
#include "tools/stream_recommendations.h"

namespace tally::tools {
namespace {

using namespace recsys;

struct RecommendOptions {
  std::string directory, history, input, out;
  std::string unknown_items = "error", bad_lines = "error", answer = "events", state;
  std::int64_t k = 10, max_sessions = 0;
  bool filter_seen = true, stream = false;

  SeenFilter seen() const { return filter_seen ? SeenFilter::full : SeenFilter::none; }
};

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// A table of the items for one history.
std::string recommend_for_history(const Recommender& from, const RecommendOptions& options) {
  const IdMap& items = from.items;
  std::vector<std::int32_t> history;
  for (const std::string& id : split_list(options.history)) {
    const auto item = items.find(id);
    check<ConfigError>(item.has_value(), "--history", "item '", id, "' is not in ", from.source);
    history.push_back(*item);
  }
  check<ConfigError>(!history.empty(), "--history", "needs at least one item id");
  const auto lists = recommend(from.ranker, Sequences::from({history}, items.size()), options.k, options.seen());
  std::string text = "rank\titem_id\tscore\ttitle\n";
  for (std::size_t r = 0; r < lists[0].size(); ++r) {
    const ScoredItem& scored = lists[0][r];
    text += fmt::format("{}\t{}\t{:g}\t{}\n", r + 1, items.name(scored.item), scored.score, from.label(scored.item));
  }
  return text;
}

/// A table of the items for every user of a file, users in the order of the file.
std::string recommend_for_file(const Recommender& from, const RecommendOptions& options) {
  const IdMap& items = from.items;
  const Histories histories =
      read_histories(options.input, items,
                     {.format = file_form_of(options.input).format,
                      .user_column = from.user_column,
                      .item_column = from.item_column,
                      .unknown = options.unknown_items == "skip" ? UnknownItems::skip : UnknownItems::error});
  if (histories.unknown_items > 0) {
    std::cerr << "left out: " << histories.unknown_items << " rows with items that the model was not trained with\n";
    for (const std::string& message : histories.unknown_messages) std::cerr << "  " << message << '\n';
  }
  const auto lists = recommend(from.ranker, histories.sequences, options.k, options.seen());
  std::string text = recommendation_head(from);
  for (std::size_t user = 0; user < lists.size(); ++user) {
    text += recommendation_rows(from, histories.users.name(static_cast<std::int32_t>(user)), lists[user]);
  }
  return text;
}

}  // namespace

void add_recommend(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<RecommendOptions>();
  CLI::App* command = app.add_subcommand("recommend", "Recommend items for histories, of users known or not");
  command->add_option("run", options->directory, "Run directory, or one that compress wrote")->required();
  command->add_option("--history", options->history, "Item ids, oldest first, separated by commas");
  command->add_option("--input", options->input,
                      "File of histories, oldest event first: columns user_id and item_id (.tsv, .csv), or lines "
                      "`user item` (.txt), plain or gzip'd; - for standard input");
  command->add_option("--unknown-items", options->unknown_items, "error or skip: items of --input the model has not")
      ->check(CLI::IsMember({"error", "skip"}));
  command->add_option("--k", options->k, "Number of items");
  command->add_flag("--filter-seen,!--no-filter-seen,!--keep-seen", options->filter_seen,
                    "Leave out the items of the history (the default)");
  command->add_option("--out", options->out, "File to write, whole or not at all (default: standard output)");
  CLI::Option* stream = command->add_flag(
      "--stream", options->stream,
      "Read events `user TAB item` from standard input and answer each at once; `user TAB ?` asks without an event");
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
  command->callback([=, &exit_code] {
    check<ConfigError>(options->k >= 1, "--k", "needs at least 1; got ", options->k);
    check<ConfigError>((command->count("--history") > 0) + (command->count("--input") > 0) + options->stream == 1,
                       "recommend", "needs --history, --input or --stream, one of the three");
    check<ConfigError>(!options->stream || options->out.empty(), "--out", "does not go with --stream");
    if (options->stream) {
      exit_code =
          stream_recommendations(open_recommender(options->directory), {.k = options->k,
                                                                        .filter_seen = options->filter_seen,
                                                                        .answer_events = options->answer == "events",
                                                                        .skip_bad_lines = options->bad_lines == "skip",
                                                                        .max_sessions = options->max_sessions,
                                                                        .state = options->state});
      return;
    }
    const Recommender from = open_recommender(options->directory);
    const std::string text =
        command->count("--input") > 0 ? recommend_for_file(from, *options) : recommend_for_history(from, *options);
    if (options->out.empty()) {
      std::cout << text;
    } else {
      write_file_atomically(options->out, text);
    }
    exit_code = 0;
  });
}

}  // namespace tally::tools
