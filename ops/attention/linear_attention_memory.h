#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tally/ops/attention/linear_attention.h"

namespace tally::ops {

/// The recurrent form of causal linear_attention(): what one sequence has written, in double, of a size that does not
/// depend on its length. A plain value: copy it, compare it, save it.
struct LinearAttentionMemory {
  std::int64_t memories = 0, width = 0, value_width = 0;
  std::vector<double> sums;  ///< [memories, width, value_width]

  /// f32 [1, memories, width, value_width]: the initial state of a sequence that goes on.
  Tensor to_tensor() const;

  /// The value as bytes of a fixed little-endian layout, with a version and a fingerprint against damage.
  std::string save() const;
  /// Throws IoError for bytes that are cut off, damaged, of another version or not finite; ShapeError for other sizes
  /// than `like`'s.
  static LinearAttentionMemory load(std::string_view bytes, const LinearAttentionMemory& like);

  friend bool operator==(const LinearAttentionMemory&, const LinearAttentionMemory&) = default;
};

/// A memory of zeros. Throws ValueError for sizes below 1.
LinearAttentionMemory linear_attention_memory(std::int64_t memories, std::int64_t width, std::int64_t value_width);
/// What a sequence left: its part [memories, d, e] of a final state, f32 or f64. Throws ShapeError, DTypeError.
LinearAttentionMemory linear_attention_memory(const Tensor& state);

/// Writes an event's keys [memories * d] and values [memories * e], then answers its queries [heads * d]: the row
/// [heads * e] that linear_attention() gives at this place, up to rounding, in O(heads d e) however long the history.
/// log_decay: of gated rules [1], [memories], or [memories * d], along values [memories * e], else empty. gain: [1] or
/// [memories], or empty for 1. `output` must not overlap the others. Of the options the execution is not looked at.
/// Throws what linear_attention() throws, and then the memory is as it was.
void linear_attention_step(LinearAttentionMemory& memory, std::span<const float> q, std::span<const float> k,
                           std::span<const float> v, std::span<const float> log_decay, std::span<const float> gain,
                           std::span<float> output, const LinearAttentionOptions& options = {});

}  // namespace tally::ops
