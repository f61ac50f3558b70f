#include "tally/recsys/report/breakdown.h"

#include <algorithm>

namespace tally::recsys {
namespace {

/// Ends of buckets: 5, 10, 20, 50, 100, ... up to the one that holds `highest`.
std::vector<std::int64_t> ends_up_to(std::int64_t highest) {
  std::vector<std::int64_t> ends;
  for (std::int64_t decade = 1; ends.empty() || ends.back() < highest; decade *= 10) {
    for (const std::int64_t factor : {5, 10, 20}) {
      if (ends.empty() || ends.back() < highest) ends.push_back(factor * decade);
    }
  }
  return ends;
}

std::string range_label(std::int64_t from, std::int64_t to) {
  return from == to ? std::to_string(from) : std::to_string(from) + "\xE2\x80\x93" + std::to_string(to);
}

}  // namespace

std::string LengthBucket::label() const { return range_label(from, to); }

std::string RankBucket::label() const { return to == 0 ? "not ranked" : range_label(from, to); }

std::vector<LengthBucket> by_history_length(const std::vector<UserRank>& ranks, const std::string& metric,
                                            RankTies ties) {
  std::int64_t longest = -1;
  for (const UserRank& user : ranks) longest = std::max(longest, user.history_length);
  if (longest < 0) return {};
  std::vector<LengthBucket> buckets;
  std::int64_t from = 0;
  for (const std::int64_t end : ends_up_to(longest)) {
    buckets.push_back({from, end, 0, 0});
    from = end + 1;
  }
  for (const UserRank& user : ranks) {
    if (user.history_length < 0) continue;
    const auto bucket = std::find_if(buckets.begin(), buckets.end(),
                                     [&](const LengthBucket& each) { return user.history_length <= each.to; });
    ++bucket->users;
    bucket->metric += metric_of(user.rank, metric, ties);
  }
  std::erase_if(buckets, [](const LengthBucket& bucket) { return bucket.users == 0; });
  for (LengthBucket& bucket : buckets) bucket.metric /= static_cast<double>(bucket.users);
  return buckets;
}

std::vector<RankBucket> rank_distribution(const std::vector<UserRank>& ranks) {
  double highest = 1;
  std::int64_t not_ranked = 0;
  for (const UserRank& user : ranks) {
    if (user.rank.is_candidate())
      highest = std::max(highest, user.rank.expected());
    else
      ++not_ranked;
  }
  std::vector<RankBucket> buckets{{1, 1, 0}};
  for (const std::int64_t end : ends_up_to(static_cast<std::int64_t>(highest + 0.5))) {
    buckets.push_back({buckets.back().to + 1, end, 0});
  }
  for (const UserRank& user : ranks) {
    if (!user.rank.is_candidate()) continue;
    // Half ranks, of two tied items, count as the worse one.
    const auto rank = static_cast<std::int64_t>(user.rank.expected() + 0.5);
    ++std::find_if(buckets.begin(), buckets.end(), [&](const RankBucket& each) { return rank <= each.to; })->users;
  }
  if (not_ranked > 0) buckets.push_back({0, 0, not_ranked});
  return buckets;
}

}  // namespace tally::recsys
