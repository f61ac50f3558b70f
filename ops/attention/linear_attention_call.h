#pragma once

#include <string_view>

#include "tally/core/tensor.h"

// What linear attention over packed sequences and its form one event at a time share: sizes and checks of a call.

namespace tally::ops::detail {

struct MemorySizes {
  std::int64_t heads, memories, width, value_width;
  double scale;
};

/// What a gate is given for.
enum class GateShape {
  absent,
  constant,  ///< [memories]: each memory, the same at every row
  shared,    ///< [T, 1]: each row, the same for every memory
  memory,    ///< [T, memories]
  channel,   ///< [T, memories * d]
};
/// Throws ShapeError for none of these; a gain is neither constant nor of channels.
GateShape gate_shape(std::string_view name, const Shape& shape, std::int64_t rows, const MemorySizes& sizes,
                     bool decay);

/// Throws ValueError, naming the row, unless all of them, contiguous, lie in [least, most]: `domain` in words.
void check_gates(std::string_view name, const Tensor& gates, std::string_view domain, double least, double most);

}  // namespace tally::ops::detail
