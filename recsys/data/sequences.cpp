#include "tally/recsys/data/sequences.h"

#include <algorithm>

#include "tally/core/error.h"

namespace tally::recsys {
namespace {

/// Lays the ends of rows, of these lengths, end to end.
template <class T>
Tensor lay_out(std::span<const std::span<const T>> rows, const std::vector<std::int64_t>& lengths, std::int64_t total,
               DType dtype) {
  Tensor all({total}, dtype);
  T* out = all.mutable_data<T>();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out = std::copy(rows[i].end() - static_cast<std::ptrdiff_t>(lengths[i]), rows[i].end(), out);
  }
  return all;
}

template <class T>
Tensor join(std::span<const Sequences> parts, Tensor Sequences::*member, DType dtype) {
  std::int64_t total = 0;
  for (const Sequences& part : parts) {
    if (!(part.*member).defined()) return {};
    total += (part.*member).numel();
  }
  Tensor all({total}, dtype);
  T* out = all.mutable_data<T>();
  for (const Sequences& part : parts) {
    const auto values = (part.*member).template span<T>();
    out = std::copy(values.begin(), values.end(), out);
  }
  return all;
}

}  // namespace

Sequences pack(std::span<const std::span<const std::int32_t>> histories, std::span<const std::span<const double>> times,
               std::int64_t window) {
  check<ShapeError>(times.empty() || times.size() == histories.size(), "Sequences", "needs times for all ",
                    histories.size(), " histories or for none; got ", times.size());
  std::vector<std::int64_t> lengths;
  lengths.reserve(histories.size());
  for (std::size_t i = 0; i < histories.size(); ++i) {
    const auto length = static_cast<std::int64_t>(histories[i].size());
    check<ShapeError>(times.empty() || times[i].size() == histories[i].size(), "Sequences", "needs a time for each of ",
                      "the ", length, " events of history ", i);
    lengths.push_back(window > 0 ? std::min(length, window) : length);
  }
  Sequences packed{Tensor(), Offsets::from_lengths(lengths), Tensor(), Tensor()};
  packed.items = lay_out(histories, lengths, packed.offsets.total(), DType::i32);
  if (!times.empty()) packed.times = lay_out(times, lengths, packed.offsets.total(), DType::f64);
  return packed;
}

Sequences concatenate(std::span<const Sequences> parts) {
  std::vector<std::int64_t> lengths;
  std::vector<Sequences> before;
  for (const Sequences& part : parts) {
    for (std::int64_t i = 0; i < part.count(); ++i) lengths.push_back(part.offsets.length(i));
    if (part.before.items.defined()) before.push_back({part.before.items, part.before.offsets, {}, {}});
  }
  Sequences all{join<std::int32_t>(parts, &Sequences::items, DType::i32), Offsets::from_lengths(lengths),
                join<std::int32_t>(parts, &Sequences::users, DType::i32),
                join<double>(parts, &Sequences::times, DType::f64)};
  if (!before.empty() && before.size() == parts.size()) {
    Sequences joined = concatenate(before);
    all.before = {std::move(joined.items), std::move(joined.offsets)};
  }
  return all;
}

Sequences Sequences::from(const std::vector<std::vector<std::int32_t>>& sequences, std::int64_t num_items) {
  for (const std::vector<std::int32_t>& sequence : sequences) {
    for (const std::int32_t item : sequence) {
      check<IndexError>(item >= 0 && item < num_items, "Sequences", "needs items in [0, ", num_items, "); got ", item);
    }
  }
  const std::vector<std::span<const std::int32_t>> spans(sequences.begin(), sequences.end());
  return pack(spans);
}

Sequences Sequences::slice(std::int64_t begin, std::int64_t end) const {
  check<IndexError>(begin >= 0 && begin <= end && end <= count(), "Sequences::slice", "needs a range within [0, ",
                    count(), "]; got [", begin, ", ", end, ")");
  const auto part_of = [&](const Tensor& all, const Offsets& packing) -> PackedItems {
    std::vector<std::int64_t> lengths;
    for (std::int64_t i = begin; i < end; ++i) lengths.push_back(packing.length(i));
    return {all.slice(0, packing.at(begin), packing.at(end)), Offsets::from_lengths(lengths)};
  };
  PackedItems part = part_of(items, offsets);
  Sequences result{std::move(part.items), std::move(part.offsets), {}, {}};
  if (users.defined()) result.users = users.slice(0, begin, end);
  if (times.defined()) result.times = times.slice(0, offsets.at(begin), offsets.at(end));
  if (before.items.defined()) result.before = part_of(before.items, before.offsets);
  return result;
}

Sequences pack_histories(const Split& split, std::span<const Target> targets) {
  std::vector<std::span<const std::int32_t>> histories;
  std::vector<std::span<const double>> times;
  for (const Target& target : targets) {
    histories.push_back(split.history(target));
    if (!split.data().times.empty()) times.push_back(split.history_times(target));
  }
  Sequences result = pack(histories, times);
  result.users = Tensor({static_cast<std::int64_t>(targets.size())}, DType::i32);
  std::int32_t* users = result.users.mutable_data<std::int32_t>();
  for (std::size_t i = 0; i < targets.size(); ++i) users[i] = targets[i].user;
  return result;
}

}  // namespace tally::recsys
