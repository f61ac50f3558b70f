#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tally/recsys/record/run_record.h"

namespace tally::recsys {

/// Users whose history is of a length in [from, to].
struct LengthBucket {
  std::int64_t from = 0, to = 0;
  std::int64_t users = 0;
  double metric = 0;  ///< mean

  /// "5", "6-10".
  std::string label() const;
};

/// The mean of a metric by history length, in buckets 0-5, 6-10, 11-20, 21-50, 51-100, 101-200, 201-500, ... of which
/// those without users are left out. Empty when the run recorded no lengths.
std::vector<LengthBucket> by_history_length(const std::vector<UserRank>& ranks, const std::string& metric,
                                            RankTies ties);

/// How many users have their item at the ranks in [from, to]; `to` is 0 for items that were no candidates.
struct RankBucket {
  std::int64_t from = 0, to = 0;
  std::int64_t users = 0;

  std::string label() const;
};

/// The distribution of expected ranks over 1, 2-5, 6-10, 11-20, 21-50, 51-100, ... up to the highest, and behind them
/// the items that were no candidates, if any.
std::vector<RankBucket> rank_distribution(const std::vector<UserRank>& ranks);

}  // namespace tally::recsys
