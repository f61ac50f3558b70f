#include "tally/recsys/run/run_recommendations.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "tally/core/io/file.h"

namespace tally::recsys {
namespace {

constexpr std::size_t kSampleUsers = 6;
constexpr std::size_t kShownHistory = 10;

/// Positions of tested users, evenly spaced in the order of their history's length.
std::vector<std::size_t> sample_users(const Split& split, const Evaluation& test) {
  std::vector<std::size_t> order(test.targets.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return split.history(test.targets[a]).size() < split.history(test.targets[b]).size();
  });
  if (order.size() <= kSampleUsers) return order;
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < kSampleUsers; ++i) chosen.push_back(order[i * (order.size() - 1) / (kSampleUsers - 1)]);
  return chosen;
}

Json labels(const RunData& data, std::span<const std::int32_t> items) {
  Json list = Json::array();
  for (const std::int32_t item : items) list.push_back(data.label(item));
  return list;
}

Json samples(const RunData& data, const Evaluation& test, const std::vector<std::vector<ScoredItem>>& lists,
             bool histories) {
  Json all = Json::array();
  for (const std::size_t i : sample_users(*data.split, test)) {
    const Target& target = test.targets[i];
    const auto history = data.interactions->sequence(target.user);
    Json recommended = Json::array();
    for (const ScoredItem& scored : lists[static_cast<std::size_t>(target.user)]) {
      recommended.push_back(Json::object({{"item", data.label(scored.item)}, {"score", scored.score}}));
    }
    Json sample = Json::object(
        {{"user", data.interactions->users.name(target.user)}, {"events", static_cast<std::int64_t>(history.size())}});
    if (histories) sample.set("history", labels(data, history.last(std::min(history.size(), kShownHistory))));
    sample.set("test_item", data.label(data.split->item(target)));
    sample.set("best_rank", test.ranks[i].best);
    sample.set("worst_rank", test.ranks[i].worst);
    sample.set("recommended", std::move(recommended));
    all.push_back(std::move(sample));
  }
  return all;
}

}  // namespace

std::vector<std::vector<ScoredItem>> write_recommendations(const RunDirectory& directory, const Ranker& ranker,
                                                           const RunData& data, const Evaluation& test,
                                                           const RecommendOptions& options, bool histories) {
  const Interactions& interactions = *data.interactions;
  std::vector<std::span<const std::int32_t>> sequences;
  std::vector<std::span<const double>> times;
  for (std::int64_t u = 0; u < interactions.num_users(); ++u) {
    sequences.push_back(interactions.sequence(u));
    if (!interactions.times.empty()) {
      times.push_back(interactions.times_of_rows(interactions.begin_of(u), interactions.begin_of(u + 1)));
    }
  }
  auto lists = recommend(ranker, pack(sequences, times), options);
  std::string text = "user_id\titem_id\tscore\trank\n";
  for (std::size_t u = 0; u < lists.size(); ++u) {
    for (std::size_t r = 0; r < lists[u].size(); ++r) {
      text += fmt::format("{}\t{}\t{:.6g}\t{}\n", interactions.users.name(static_cast<std::int32_t>(u)),
                          interactions.items.name(lists[u][r].item), lists[u][r].score, r + 1);
    }
  }
  write_file_atomically(directory.recommendations(), text);
  write_file_atomically(directory.samples(), samples(data, test, lists, histories).dump(2) + '\n');
  return lists;
}

}  // namespace tally::recsys
