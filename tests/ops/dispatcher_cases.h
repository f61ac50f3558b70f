#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/dispatcher_attention.h"
#include "tally/ops/catalog.h"
#include "tests/ops/attention_cases.h"

// What the tests of dispatcher attentions share: inputs, a call with gradients, and what must hold for both.

namespace tally::testing {

struct DispatcherCase {
  /// As ops::DispatcherInputs has them.
  std::array<Tensor, 6> inputs;
  Offsets offsets;
  std::int64_t heads = 2;

  ops::DispatcherInputs vars() const { return {inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5]}; }
  /// Rows [begin, end) as one sequence. Experts are shared.
  DispatcherCase rows(std::int64_t begin, std::int64_t end) const {
    DispatcherCase part = *this;
    for (const std::size_t i : {1, 2, 3}) part.inputs[i] = inputs[i].slice(0, begin, end).contiguous();
    part.offsets = Offsets::single(end - begin);
    return part;
  }
};

struct DispatcherSizes {
  std::int64_t experts = 5, heads = 2, width = 4, read_width = 3;  ///< of keys and outputs; of values and queries
  double deviation = 1;
  DType dtype = DType::f32;
};

inline DispatcherCase dispatcher_case(const std::vector<std::int64_t>& lengths, const DispatcherSizes& s = {}) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const std::int64_t columns = s.heads * s.width, read = s.heads * s.read_width;
  std::uint64_t stream = 1;
  const auto normal = [&](std::int64_t m, std::int64_t n, double deviation = 1) {
    return ops::sample_normal({m, n}, stream++, deviation).to(s.dtype);
  };
  return {{normal(s.experts, columns, s.deviation), normal(rows, columns, s.deviation), normal(rows, read),
           normal(rows, read, s.deviation), normal(read, read), normal(read, columns)},
          Offsets::from_lengths(lengths),
          s.heads};
}

using DispatcherFunction = std::function<Var(const ops::DispatcherInputs&, const Offsets&)>;

/// The output and the gradients of all inputs, for the same cotangent in every call of its shape.
struct DispatcherResults {
  Tensor y;
  std::array<Tensor, 6> gradients;
};

/// Cotangents are 0 from row `quiet_from` on.
inline DispatcherResults dispatch(const DispatcherFunction& attention, const DispatcherCase& in,
                                  std::int64_t quiet_from = -1) {
  Tape tape;
  std::array<Var, 6> leaves;
  for (std::size_t i = 0; i < leaves.size(); ++i) leaves[i] = tape.input(in.inputs[i]);
  Var y;
  {
    const Recording on(tape);
    y = attention({leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], leaves[5]}, in.offsets);
  }
  Tensor cotangent = ops::sample_normal(y.shape(), 99);
  if (quiet_from >= 0) {
    std::fill_n(cotangent.mutable_data<double>() + quiet_from * y.dim(1), (y.dim(0) - quiet_from) * y.dim(1), 0.0);
  }
  cotangent = cotangent.to(y.dtype());
  const Gradients all = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
  DispatcherResults results{y.value(), {}};
  for (std::size_t i = 0; i < leaves.size(); ++i) results.gradients[i] = all[leaves[i]];
  return results;
}

/// Does each sequence give the same bits of its output alone and in company?
inline bool is_independent_of_company(const DispatcherFunction& attention, const DispatcherCase& in) {
  const Tensor all = attention(in.vars(), in.offsets).value();
  for (std::int64_t i = 0; i < in.offsets.count(); ++i) {
    const std::int64_t begin = in.offsets.at(i), end = in.offsets.at(i + 1);
    const DispatcherCase alone = in.rows(begin, end);
    if (!identical(all.slice(0, begin, end).contiguous(), attention(alone.vars(), alone.offsets).value())) return false;
  }
  return true;
}

}  // namespace tally::testing
