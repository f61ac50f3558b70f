#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "tally/ops/attention/linear_attention.h"

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
  channel,   ///< [T, memories * d], along values [T, memories * e]
};
/// Of a decay along those channels, or of a gain, which is neither constant nor of channels. Throws ShapeError for none
/// of these.
GateShape gate_shape(std::string_view op, const Shape& shape, std::int64_t rows, const MemorySizes& sizes,
                     std::optional<DecayAlong> decay);

/// Throws ValueError, naming the row, unless all of them lie in the gate's domain.
template <class T>
void check_log_decay(std::string_view op, std::span<const T> gates, std::size_t columns);
template <class T>
void check_gain(std::string_view op, std::span<const T> gates, std::size_t columns, UpdateRule rule);

/// Throws ValueError for a log_decay, or channels of it, that do not belong to the rule, and for a mask that the rule
/// has no form for.
void check_rule(std::string_view op, const LinearAttentionOptions& options, bool log_decay);

}  // namespace tally::ops::detail
