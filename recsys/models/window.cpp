#include "tally/recsys/models/window.h"

#include <algorithm>
#include <vector>

namespace tally::recsys {

Sequences pack_window(std::span<const std::span<const std::int32_t>> histories, std::int64_t window) {
  std::vector<std::int64_t> lengths;
  lengths.reserve(histories.size());
  for (const auto history : histories) {
    const auto length = static_cast<std::int64_t>(history.size());
    lengths.push_back(window > 0 ? std::min(length, window) : length);
  }
  Sequences packed{Tensor(), Offsets::from_lengths(lengths), Tensor()};
  packed.items = Tensor({packed.offsets.total()}, DType::i32);
  auto* out = packed.items.mutable_data<std::int32_t>();
  for (std::size_t i = 0; i < histories.size(); ++i) {
    out = std::copy(histories[i].end() - static_cast<std::ptrdiff_t>(lengths[i]), histories[i].end(), out);
  }
  return packed;
}

Sequences cut_to_window(const Sequences& sequences, std::int64_t window) {
  if (sequences.offsets.longest() <= window) return sequences;
  std::vector<std::span<const std::int32_t>> histories;
  histories.reserve(static_cast<std::size_t>(sequences.count()));
  for (std::int64_t i = 0; i < sequences.count(); ++i) histories.push_back(sequences.sequence(i));
  Sequences cut = pack_window(histories, window);
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
