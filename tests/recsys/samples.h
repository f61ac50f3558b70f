#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tally/core/random.h"
#include "tally/recsys/data/interactions.h"

namespace tally::test {

/// Interactions of the given item indices; users are called u0, u1, ... and items i0, i1, ...
inline recsys::Interactions interactions_of(const std::vector<std::vector<std::int32_t>>& sequences,
                                            std::int64_t num_items) {
  recsys::Interactions data;
  for (std::int64_t i = 0; i < num_items; ++i) data.items.add("i" + std::to_string(i));
  for (const std::vector<std::int32_t>& sequence : sequences) {
    data.users.add("u" + std::to_string(data.num_users()));
    data.events.insert(data.events.end(), sequence.begin(), sequence.end());
    data.offsets.push_back(data.size());
  }
  return data;
}

/// Sequences of random items (repeats included) with lengths from 0 to `longest`.
inline recsys::Interactions random_interactions(RngKey key, std::int64_t users, std::int64_t num_items,
                                                std::int64_t longest) {
  std::vector<std::vector<std::int32_t>> sequences(static_cast<std::size_t>(users));
  for (std::uint64_t user = 0; user < sequences.size(); ++user) {
    const std::uint64_t length = uniform_below(key, user, 0, static_cast<std::uint64_t>(longest) + 1);
    for (std::uint64_t i = 1; i <= length; ++i) {
      const std::uint64_t item = uniform_below(key, user, i, static_cast<std::uint64_t>(num_items));
      sequences[user].push_back(static_cast<std::int32_t>(item));
    }
  }
  return interactions_of(sequences, num_items);
}

}  // namespace tally::test
