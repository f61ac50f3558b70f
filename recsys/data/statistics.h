#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tally/recsys/data/interactions.h"

namespace tally::recsys {

/// Figures of a data set; all of them counted, none estimated.
struct Statistics {
  std::int64_t users = 0;
  std::int64_t items = 0;
  std::int64_t events = 0;
  double density = 0;  ///< events / (users * items)
  std::int64_t shortest = 0;
  double mean_length = 0;
  double median_length = 0;
  std::int64_t longest = 0;
  std::int64_t single_event_users = 0;
  std::int64_t short_users = 0;      ///< fewer than 3 events: leave-one-out trains on them but does not evaluate them
  std::int64_t repeats = 0;          ///< events beyond the first of the same user with the same item
  bool has_times = false;            ///< whether the ties below could be counted
  std::int64_t tied_pairs = 0;       ///< neighbours in a sequence with equal times
  std::int64_t tied_last_users = 0;  ///< users whose last two events have equal times: the tie rule picks their target

  /// Lines for people, ending with a newline.
  std::string to_text() const;
};

Statistics statistics(const Interactions& data);

/// Length that a share `q` in [0, 1] of the users does not exceed (linear between neighbours). 0 without users.
double length_quantile(const Interactions& data, double q);

}  // namespace tally::recsys
