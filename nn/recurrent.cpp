#include "tally/nn/recurrent.h"

#include <cmath>

#include "tally/nn/initializers.h"
#include "tally/ops/recurrent/gru.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {
namespace {

/// The weights of a recurrence with so many gates.
struct GateWeights {
  Linear input;
  Parameter hidden_weight, hidden_bias;
};

GateWeights draw_gates(const char* where, std::int64_t gates, std::int64_t in, std::int64_t width, RngKey key) {
  check<ValueError>(in > 0 && width > 0, where, "needs sizes above 0; got in ", in, ", width ", width);
  const double bound = 1 / std::sqrt(static_cast<double>(width));
  const auto drawn = [&](const Shape& shape, std::string_view name) {
    return Parameter(uniform(shape, bound, key.fold_in(name)));
  };
  return {{drawn({gates * width, in}, "input_weight"), drawn({gates * width}, "input_bias")},
          drawn({gates * width, width}, "hidden_weight"),
          drawn({gates * width}, "hidden_bias")};
}

/// For each row the one that stands as far from its sequence's other end.
Tensor mirrored_rows(const Offsets& offsets) {
  Tensor rows({offsets.total()}, DType::i64);
  auto* to = rows.mutable_data<std::int64_t>();
  for (std::int64_t s = 0; s < offsets.count(); ++s) {
    for (std::int64_t row = offsets.at(s); row < offsets.at(s + 1); ++row) {
      to[row] = offsets.at(s) + offsets.at(s + 1) - 1 - row;
    }
  }
  return rows;
}

}  // namespace

Gru Gru::make(const GruOptions& options, RngKey key) {
  GateWeights weights = draw_gates("Gru", 3, options.in, options.width, key);
  if (!options.bias) weights.input.bias = weights.hidden_bias = {};
  return {std::move(weights.input), std::move(weights.hidden_weight), std::move(weights.hidden_bias),
          options.linear_before_reset};
}

Var Gru::operator()(const Var& x, const Offsets& offsets, const Var& initial) const {
  return ops::gru(input(x), hidden_weight, hidden_bias, initial, offsets, {.linear_before_reset = linear_before_reset});
}

BidirectionalGru BidirectionalGru::make(const GruOptions& options, RngKey key) {
  return {Gru::make(options, key.fold_in("forward")), Gru::make(options, key.fold_in("backward"))};
}

Var BidirectionalGru::operator()(const Var& x, const Offsets& offsets) const {
  offsets.check_rows(x.dim(0), "BidirectionalGru");
  const Tensor mirrored = mirrored_rows(offsets);
  const Var from_end = ops::gather(backward(ops::gather(x, mirrored), offsets), mirrored);
  return ops::concat({forward(x, offsets), from_end}, 1);
}

Lstm Lstm::make(const LstmOptions& options, RngKey key) {
  GateWeights weights = draw_gates("Lstm", 4, options.in, options.width, key);
  return {std::move(weights.input), std::move(weights.hidden_weight), std::move(weights.hidden_bias)};
}

ops::LstmResult Lstm::operator()(const Var& x, const Offsets& offsets, const Var& initial_state,
                                 const Var& initial_cell) const {
  return ops::lstm(input(x), hidden_weight, hidden_bias, initial_state, initial_cell, offsets);
}

}  // namespace tally::nn
