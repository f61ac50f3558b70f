#include "tally/recsys/baselines/markov.h"

#include <algorithm>
#include <numeric>

#include "tally/core/parallel.h"

namespace tally::recsys {

namespace {

struct Follower {
  std::int32_t item;
  std::int64_t count;
};

/// Distinct items of `items` with their counts, ascending by item; sorts `items`.
std::vector<Follower> count_distinct(std::span<std::int32_t> items) {
  std::sort(items.begin(), items.end());
  std::vector<Follower> result;
  for (const std::int32_t item : items) {
    if (result.empty() || result.back().item != item) result.push_back({item, 0});
    ++result.back().count;
  }
  return result;
}

/// Scores of followers, which come out ordered by (count, popularity).
std::vector<float> scores_by_count_and_popularity(std::vector<Follower>& followers,
                                                  const std::vector<std::int64_t>& popularity) {
  const auto popularity_of = [&](const Follower& follower) {
    return popularity[static_cast<std::size_t>(follower.item)];
  };
  std::sort(followers.begin(), followers.end(), [&](const Follower& a, const Follower& b) {
    if (a.count != b.count) return a.count < b.count;
    return popularity_of(a) != popularity_of(b) ? popularity_of(a) < popularity_of(b) : a.item < b.item;
  });
  std::vector<float> scores(followers.size());
  for (std::size_t begin = 0, end = 0; begin < followers.size(); begin = end) {
    while (end < followers.size() && followers[end].count == followers[begin].count) ++end;
    double rank = 0;
    for (std::size_t i = begin; i < end; ++i) {
      if (i > begin && popularity_of(followers[i]) != popularity_of(followers[i - 1])) ++rank;
      const double fraction = rank / static_cast<double>(end - begin);
      scores[i] = static_cast<float>(static_cast<double>(followers[i].count) + fraction);
    }
  }
  return scores;
}

}  // namespace

Markov::Markov(const Split& split) : popularity_({split.data().num_items()}) {
  const Interactions& data = split.data();
  const std::vector<std::int64_t> popularity = split.training_counts();
  const std::int64_t most = popularity.empty() ? 0 : *std::max_element(popularity.begin(), popularity.end());
  float* out = popularity_.mutable_data<float>();
  for (const std::int64_t count : popularity) {
    *out++ = static_cast<float>(static_cast<double>(count) / static_cast<double>(most + 1));
  }

  // All transitions, grouped by the item they leave.
  const auto for_each_transition = [&](auto&& visit) {
    for (std::int64_t user = 0; user < data.num_users(); ++user) {
      const std::span<const std::int32_t> items = split.training(user);
      for (std::size_t i = 1; i < items.size(); ++i) visit(static_cast<std::size_t>(items[i - 1]), items[i]);
    }
  };
  std::vector<std::int64_t> bounds(popularity.size() + 1, 0);
  for_each_transition([&](std::size_t from, std::int32_t) { ++bounds[from + 1]; });
  std::partial_sum(bounds.begin(), bounds.end(), bounds.begin());
  std::vector<std::int32_t> transitions(static_cast<std::size_t>(bounds.back()));
  std::vector<std::int64_t> next(bounds.begin(), bounds.end() - 1);
  for_each_transition(
      [&](std::size_t from, std::int32_t to) { transitions[static_cast<std::size_t>(next[from]++)] = to; });

  offsets_.push_back(0);
  for (std::size_t from = 0; from < popularity.size(); ++from) {
    const auto size = static_cast<std::size_t>(bounds[from + 1] - bounds[from]);
    std::vector<Follower> followers =
        count_distinct(std::span(transitions).subspan(static_cast<std::size_t>(bounds[from]), size));
    const std::vector<float> scores = scores_by_count_and_popularity(followers, popularity);
    for (const Follower& follower : followers) followers_.push_back(follower.item);
    scores_.insert(scores_.end(), scores.begin(), scores.end());
    offsets_.push_back(static_cast<std::int64_t>(followers_.size()));
  }
}

Tensor Markov::score(const Sequences& histories) const {
  Tensor result({histories.count(), num_items()});
  float* const out = result.mutable_data<float>();
  const std::span<const float> popularity = popularity_.span<float>();
  parallel_for(histories.count(), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* const row = out + i * num_items();
      std::copy(popularity.begin(), popularity.end(), row);
      const std::span<const std::int32_t> history = histories.sequence(i);
      if (history.empty()) continue;
      const auto last = static_cast<std::size_t>(history.back());
      for (std::int64_t at = offsets_[last]; at < offsets_[last + 1]; ++at) {
        row[followers_[static_cast<std::size_t>(at)]] = scores_[static_cast<std::size_t>(at)];
      }
    }
  });
  return result;
}

}  // namespace tally::recsys
