#include "tally/recsys/models/window.h"

#include <algorithm>
#include <vector>

namespace tally::recsys {

Sequences pack_window(std::span<const std::span<const std::int32_t>> histories, std::int64_t window) {
  return pack(histories, {}, window);
}

Sequences cut_to_window(const Sequences& sequences, std::int64_t window, std::int64_t events_before) {
  if (sequences.offsets.longest() <= window) return sequences;
  std::vector<std::span<const std::int32_t>> histories, before;
  std::vector<std::span<const double>> times;
  histories.reserve(static_cast<std::size_t>(sequences.count()));
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    const auto history = sequences.sequence(i);
    histories.push_back(history);
    if (sequences.times.defined()) times.push_back(sequences.times_of(i));
    const auto older = std::max<std::int64_t>(0, sequences.offsets.length(i) - window);
    before.push_back(history.first(static_cast<std::size_t>(older)));
  }
  Sequences cut = pack(histories, times, window);
  cut.users = sequences.users;
  if (events_before == 0) return cut;
  Sequences older = pack(before, {}, events_before);
  cut.before = {std::move(older.items), std::move(older.offsets)};
  return cut;
}

Tensor positions(const Offsets& offsets, std::int64_t window, PositionAlignment alignment) {
  check<ShapeError>(offsets.longest() <= window, "positions", "needs sequences of at most ", window, " items; got ",
                    offsets.longest());
  Tensor result({offsets.total()}, DType::i32);
  auto* out = result.mutable_data<std::int32_t>();
  for (std::int64_t s = 0; s < offsets.count(); ++s) {
    const std::int64_t first = alignment == PositionAlignment::start ? 0 : window - offsets.length(s);
    for (std::int64_t i = 0; i < offsets.length(s); ++i) out[offsets.at(s) + i] = static_cast<std::int32_t>(first + i);
  }
  return result;
}

}  // namespace tally::recsys
