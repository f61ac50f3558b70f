#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/recsys/data/interactions.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// Figures of a data set; all of them counted, none estimated.
struct Statistics {
  std::int64_t users = 0;
  std::int64_t items = 0;
  std::int64_t events = 0;
  double density = 0;  ///< events / (users * items)
  std::int64_t shortest = 0;
  double tenth_length = 0;  ///< that the shortest tenth of the users does not exceed
  double mean_length = 0;
  double median_length = 0;
  double ninetieth_length = 0;
  std::int64_t longest = 0;
  std::int64_t single_event_users = 0;
  std::int64_t short_users = 0;      ///< fewer than 3 events: leave-one-out trains on them but does not evaluate them
  std::int64_t repeats = 0;          ///< events beyond the first of the same user with the same item
  bool has_times = false;            ///< whether the ties below could be counted
  std::int64_t tied_pairs = 0;       ///< neighbours in a sequence with equal times
  std::int64_t tied_last_users = 0;  ///< users whose last two events have equal times: the tie rule picks their target

  /// Lines for people, ending with a newline.
  std::string to_text() const;
  /// One member for each figure; those of ties are null when they are unknown.
  Json to_json() const;
};

Statistics statistics(const Interactions& data);

/// Targets of a part whose item never occurs in the training part: no ranker that learns items can find them.
std::int64_t count_unreachable(const Split& split, Part part);

/// Length that a share `q` in [0, 1] of the users does not exceed (linear between neighbours). 0 without users.
double length_quantile(const Interactions& data, double q);

}  // namespace tally::recsys
