#include "tally/ops/recurrent/convolution_state.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tally/ops/kernels/causal_conv1d.h"
#include "tally/ops/recurrent/causal_conv1d.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "convolution_state";

std::size_t place(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

ConvolutionReader::ConvolutionReader(const Tensor& weight, const Tensor& bias, Activation activation)
    : silu_(activation == Activation::silu) {
  check<ShapeError>(weight.rank() == 2, kName, "needs weight [D, W]; got ", weight.shape());
  check<DTypeError>(weight.dtype() == DType::f32, kName, "needs weight f32; got ", weight.dtype());
  // The op's own checks, on a call without rows.
  causal_conv1d(Tensor({0, weight.dim(0)}), weight, bias.defined() ? Var(bias) : Var(), {}, Offsets(), activation);
  width_ = weight.dim(0);
  taps_ = weight.dim(1);
  // Copies: a parameter that is trained on must not change half of what a reader answers.
  weight_ = weight.transpose(0, 1).clone();
  if (bias.defined()) bias_ = bias.clone();
}

ConvolutionState ConvolutionReader::initial_state() const {
  return {width_, taps_, std::vector<float>(place((taps_ - 1) * width_))};
}

void ConvolutionReader::step(ConvolutionState& state, std::span<const float> row, std::span<float> output) const {
  check<ShapeError>(state.width == width_ && state.taps == taps_ && state.rows.size() == place((taps_ - 1) * width_),
                    kName, "needs a state of width ", width_, " and ", taps_, " taps; got width ", state.width, ", ",
                    state.taps, " taps and ", state.rows.size(), " elements");
  check<ShapeError>(row.size() == place(width_) && output.size() == row.size(), kName, "needs a row and an output of ",
                    width_, " elements; got ", row.size(), " and ", output.size());
  const auto wrong = std::find_if(row.begin(), row.end(), [](float x) { return !std::isfinite(x); });
  check<ValueError>(wrong == row.end(), kName, "needs a finite row; got ", wrong == row.end() ? 0 : *wrong,
                    " in column ", wrong - row.begin());
  const std::array<std::int64_t, 2> bounds{0, 1};
  kernels::causal_conv1d<float>({bounds, width_, taps_, row.data(), state.rows.data()}, weight_.data<float>(),
                                bias_.defined() ? bias_.data<float>() : nullptr, silu_, output.data());
  if (taps_ == 1) return;
  std::copy(state.rows.begin() + width_, state.rows.end(), state.rows.begin());
  std::copy(row.begin(), row.end(), state.rows.end() - width_);
}

}  // namespace tally::ops
