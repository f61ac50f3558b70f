#include "tally/recsys/evaluation/top_k.h"

#include <algorithm>

#include "tally/core/error.h"
#include "tally/core/parallel.h"

namespace tally::recsys {

namespace {

bool better(const ScoredItem& a, const ScoredItem& b) {
  return a.score != b.score ? a.score > b.score : a.item < b.item;
}

}  // namespace

std::vector<ScoredItem> top_k(std::span<const float> scores, std::int64_t k, std::span<const std::int32_t> excluded,
                              std::span<const std::uint8_t> candidates) {
  check<ValueError>(k >= 1, "top_k", "needs k of at least 1; got ", k);
  check<ShapeError>(candidates.empty() || candidates.size() == scores.size(), "top_k",
                    "needs a candidate byte for each of ", scores.size(), " items; got ", candidates.size());
  check_finite(scores);
  std::vector<std::int32_t> left_out(excluded.begin(), excluded.end());
  std::sort(left_out.begin(), left_out.end());
  const auto is_allowed = [&](std::size_t i) {
    return (candidates.empty() || candidates[i] != 0) &&
           !std::binary_search(left_out.begin(), left_out.end(), static_cast<std::int32_t>(i));
  };
  // A heap of the best so far with the worst of them on top. Items come by ascending index, so an equal score never
  // replaces one that is in.
  std::vector<ScoredItem> best;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const bool full = static_cast<std::int64_t>(best.size()) == k;
    if ((full && !(scores[i] > best.front().score)) || !is_allowed(i)) continue;
    if (full) {
      std::pop_heap(best.begin(), best.end(), better);
      best.pop_back();
    }
    best.push_back({static_cast<std::int32_t>(i), scores[i]});
    std::push_heap(best.begin(), best.end(), better);
  }
  std::sort_heap(best.begin(), best.end(), better);
  return best;
}

std::vector<std::vector<ScoredItem>> recommend(const Ranker& ranker, const Sequences& histories,
                                               const RecommendOptions& options) {
  const std::int64_t n = histories.count();
  const std::int64_t items = ranker.num_items();
  check<ShapeError>(options.left_out.empty() || static_cast<std::int64_t>(options.left_out.size()) == n, "recommend",
                    "needs a list of items to leave out for each of ", n, " histories; got ", options.left_out.size());
  const std::int64_t step = users_per_block(items);
  std::vector<std::vector<ScoredItem>> result(static_cast<std::size_t>(n));
  for (std::int64_t block = 0; block < n; block += step) {
    check_stop(options.stop_requested, "recommend");
    const Sequences mine = histories.slice(block, std::min(block + step, n));
    const Tensor scores = ranker.score(mine);
    const float* const rows = scores.data<float>();
    parallel_for(mine.count(), 8, [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::int32_t> excluded;
      for (std::int64_t i = begin; i < end; ++i) {
        const auto at = static_cast<std::size_t>(block + i);
        excluded.clear();
        if (options.seen == SeenFilter::full) {
          const auto history = mine.sequence(i);
          excluded.assign(history.begin(), history.end());
        }
        if (!options.left_out.empty()) {
          excluded.insert(excluded.end(), options.left_out[at].begin(), options.left_out[at].end());
        }
        const std::span row(rows + i * items, static_cast<std::size_t>(items));
        result[at] = top_k(row, options.k, excluded, options.candidates);
      }
    });
  }
  return result;
}

}  // namespace tally::recsys
