// The forms of gated linear attention against one another: chunks with a backward pass by hand, the loop of its
// definition under autodiff, and one row at a time.
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "tally/autograd/tape.h"
#include "tally/ops/catalog.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/lookup/causal_lookup.h"
#include "tally/ops/lookup/outer_sums.h"
#include "tally/ops/lookup/representation.h"
#include "tally/ops/tensor/matmul.h"
#include "tally/ops/tensor/shape.h"
#include "tests/ops/attention_cases.h"

namespace lookup_forms_test {

using namespace tally;
using tally::testing::largest_difference;

namespace {

/// q [M, k], f [T, k], log_decay [T], gain [T] in double, and where the queries look.
struct Inputs {
  Offsets offsets;
  Tensor places;
  std::vector<Tensor> tensors;
};

Inputs draw(const std::vector<std::int64_t>& lengths, const std::vector<std::int64_t>& places, std::int64_t width) {
  const Offsets offsets = Offsets::from_lengths(lengths);
  const auto count = static_cast<std::int64_t>(places.size());
  Tensor log_decay = ops::sample_normal({offsets.total()}, 3), gain = ops::sample_normal({offsets.total()}, 4);
  for (double& x : log_decay.mutable_span<double>()) x = -0.2 * std::abs(x);
  for (double& x : gain.mutable_span<double>()) x = 1 / (1 + std::exp(-x));
  return {offsets,
          Tensor::from(places, {count}),
          {ops::sample_normal({count, width}, 1), ops::sample_normal({offsets.total(), width}, 2), log_decay, gain}};
}

/// Every C_t is kept, and the tape differentiates.
Var naive(const std::vector<Var>& in, const Inputs& inputs) {
  const std::span<const std::int64_t> places = inputs.places.span<std::int64_t>();
  std::vector<Var> rows(places.size());
  for (std::int64_t document = 0; document < inputs.offsets.count(); ++document) {
    Var c;
    for (std::int64_t t = inputs.offsets.at(document); t < inputs.offsets.at(document + 1); ++t) {
      const Var f = ops::slice(in[1], 0, t, t + 1);
      const Var added = ops::matmul(ops::transpose(f, 0, 1), f) * ops::slice(in[3], 0, t, t + 1);
      c = c.defined() ? c * ops::exp(ops::slice(in[2], 0, t, t + 1)) + added : added;
      for (std::size_t j = 0; j < places.size(); ++j) {
        const auto row = static_cast<std::int64_t>(j);
        if (places[j] == t) rows[j] = ops::matmul(ops::slice(in[0], 0, row, row + 1), c);
      }
    }
  }
  return ops::concat(rows, 0);
}

struct Results {
  Tensor y;
  std::vector<Tensor> gradients;
};

Results differentiate(const Inputs& inputs, const std::function<Var(const std::vector<Var>&)>& call) {
  Tape tape;
  std::vector<Var> leaves;
  for (const Tensor& tensor : inputs.tensors) leaves.push_back(tape.input(tensor));
  Var y;
  {
    const Recording on(tape);
    y = call(leaves);
  }
  const Tensor cotangent = ops::sample_normal(y.shape(), 9);
  const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
  Results results{y.value(), {}};
  for (const Var& leaf : leaves) results.gradients.push_back(gradients[leaf]);
  return results;
}

}  // namespace

TEST_CASE("the closed-form gradients are those of autodiff through the loop", "[lookup]") {
  // Several chunks, an empty document and one of a row; rows without lookups, rows with two, none at a document's end.
  const Inputs inputs = draw({70, 0, 1, 20}, {5, 69, 64, 5, 70, 89, 63, 80}, 5);
  const Results by_loop = differentiate(inputs, [&](const std::vector<Var>& in) { return naive(in, inputs); });
  const Results by_chunks = differentiate(inputs, [&](const std::vector<Var>& in) {
    return ops::causal_lookup(in[0], in[1], in[1], in[2], in[3], inputs.places, inputs.offsets);
  });
  CHECK(largest_difference(by_chunks.y, by_loop.y) < 1e-12);
  for (std::size_t i = 0; i < inputs.tensors.size(); ++i) {
    INFO("input " << i);
    CHECK(largest_difference(by_chunks.gradients[i], by_loop.gradients[i]) < 1e-11);
  }
}

TEST_CASE("one row at a time gives what chunks give", "[lookup]") {
  constexpr std::int64_t rows = 200, width = 9;
  std::vector<std::int64_t> places(rows);
  for (std::int64_t t = 0; t < rows; ++t) places[static_cast<std::size_t>(t)] = t;
  Inputs inputs = draw({rows}, places, width);
  // What f32 holds, so that both forms read the same numbers.
  for (Tensor& tensor : inputs.tensors) tensor = tensor.to(DType::f32).to(DType::f64);
  const std::vector<Tensor>& in = inputs.tensors;
  const Tensor by_chunks =
      ops::causal_lookup(Var(in[0]), Var(in[1]), Var(in[1]), Var(in[2]), Var(in[3]), inputs.places, inputs.offsets)
          .value();
  const Tensor q = in[0].to(DType::f32), f = in[1].to(DType::f32);
  const auto row_of = [](const Tensor& of, std::int64_t t) {
    return of.span<float>().subspan(static_cast<std::size_t>(t * width), static_cast<std::size_t>(width));
  };
  ops::Representation document(width);
  Tensor by_rows({rows, width});
  for (std::int64_t t = 0; t < rows; ++t) {
    document.append(row_of(f, t), std::exp(in[2].data<double>()[t]), in[3].data<double>()[t]);
    document.look_up(row_of(q, t), by_rows.mutable_span<float>().subspan(static_cast<std::size_t>(t * width),
                                                                         static_cast<std::size_t>(width)));
  }
  CHECK(largest_difference(by_rows.to(DType::f64), by_chunks) < 1e-6);
  const Tensor packed = ops::outer_sums(Var(in[1]), Var(in[2]), Var(in[3]), {}, inputs.offsets).value();
  CHECK(largest_difference(document.to_tensor().to(DType::f64), packed) < 1e-6);
}

}  // namespace lookup_forms_test
