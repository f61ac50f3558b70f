#include "tally/recsys/data/sequences.h"

#include <algorithm>

#include "tally/core/error.h"

namespace tally::recsys {

namespace {

/// Packs sequence_of(0), ..., sequence_of(n - 1).
template <class SequenceOf>
Sequences pack(std::size_t n, SequenceOf&& sequence_of) {
  std::vector<std::int64_t> lengths(n);
  for (std::size_t i = 0; i < n; ++i) lengths[i] = static_cast<std::int64_t>(sequence_of(i).size());
  Sequences result;
  result.offsets = Offsets::from_lengths(lengths);
  result.items = Tensor({result.offsets.total()}, DType::i32);
  std::int32_t* out = result.items.mutable_data<std::int32_t>();
  for (std::size_t i = 0; i < n; ++i) {
    const std::span<const std::int32_t> sequence = sequence_of(i);
    out = std::copy(sequence.begin(), sequence.end(), out);
  }
  return result;
}

}  // namespace

Sequences Sequences::from(const std::vector<std::vector<std::int32_t>>& sequences, std::int64_t num_items) {
  for (const std::vector<std::int32_t>& sequence : sequences) {
    for (const std::int32_t item : sequence) {
      check<IndexError>(item >= 0 && item < num_items, "Sequences", "needs items in [0, ", num_items, "); got ", item);
    }
  }
  return pack(sequences.size(), [&](std::size_t i) { return std::span<const std::int32_t>(sequences[i]); });
}

Sequences Sequences::slice(std::int64_t begin, std::int64_t end) const {
  check<IndexError>(begin >= 0 && begin <= end && end <= count(), "Sequences::slice", "needs a range within [0, ",
                    count(), "]; got [", begin, ", ", end, ")");
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = begin; i < end; ++i) lengths.push_back(offsets.length(i));
  Sequences result;
  result.items = items.slice(0, offsets.at(begin), offsets.at(end));
  result.offsets = Offsets::from_lengths(lengths);
  if (users.defined()) result.users = users.slice(0, begin, end);
  return result;
}

Sequences pack_histories(const Split& split, std::span<const Target> targets) {
  Sequences result = pack(targets.size(), [&](std::size_t i) { return split.history(targets[i]); });
  result.users = Tensor({static_cast<std::int64_t>(targets.size())}, DType::i32);
  std::int32_t* users = result.users.mutable_data<std::int32_t>();
  for (std::size_t i = 0; i < targets.size(); ++i) users[i] = targets[i].user;
  return result;
}

}  // namespace tally::recsys
