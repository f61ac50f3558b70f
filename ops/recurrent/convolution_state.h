#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tally/core/tensor.h"
#include "tally/ops/elementwise/activation.h"

namespace tally::ops {

/// The recurrent form of causal_conv1d(): the last W - 1 rows of one sequence. A plain value: copy it, compare it, save
/// its members.
struct ConvolutionState {
  std::int64_t width = 0, taps = 0;
  std::vector<float> rows;  ///< [W - 1, D], oldest first, zeros before the first event

  friend bool operator==(const ConvolutionState&, const ConvolutionState&) = default;
};

/// What an event's answer reads of the parameters: checked and laid out once, for all states of a model.
class ConvolutionReader {
 public:
  /// weight [D, W] and bias [D] or undefined, f32, as causal_conv1d() takes them. Throws ShapeError, DTypeError;
  /// ValueError for another activation than none and silu.
  ConvolutionReader(const Tensor& weight, const Tensor& bias, Activation activation = Activation::none);

  std::int64_t width() const { return width_; }
  std::int64_t taps() const { return taps_; }

  /// The state before the first event.
  ConvolutionState initial_state() const;
  /// Answers an event's row [D] and remembers it: the bits that causal_conv1d() gives at this place. O(D W), however
  /// long the history. `output` must not overlap `row`. Throws ShapeError for other sizes, or a state of others;
  /// ValueError for a row that is not finite, and then the state is as it was.
  void step(ConvolutionState& state, std::span<const float> row, std::span<float> output) const;

 private:
  std::int64_t width_, taps_;
  bool silu_;
  Tensor weight_, bias_;  // [W, D], [D]
};

}  // namespace tally::ops
