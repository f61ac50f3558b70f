#include "tally/recsys/models/window.h"

#include <vector>

namespace tally::recsys {

Sequences pack_window(std::span<const std::span<const std::int32_t>> histories, std::int64_t window) {
  return pack(histories, {}, window);
}

Sequences cut_to_window(const Sequences& sequences, std::int64_t window) {
  if (sequences.offsets.longest() <= window) return sequences;
  std::vector<std::span<const std::int32_t>> histories;
  std::vector<std::span<const double>> times;
  histories.reserve(static_cast<std::size_t>(sequences.count()));
  for (std::int64_t i = 0; i < sequences.count(); ++i) {
    histories.push_back(sequences.sequence(i));
    if (sequences.times.defined()) times.push_back(sequences.times_of(i));
  }
  Sequences cut = pack(histories, times, window);
  cut.users = sequences.users;
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
