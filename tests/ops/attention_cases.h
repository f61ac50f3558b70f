#pragma once

#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/softmax_attention.h"
#include "tally/ops/catalog.h"

// What the tests of attentions share: inputs, a call with gradients, and what must hold for any of them.

namespace tally::testing {

struct AttentionInputs {
  Tensor q, k, v, cotangent;
  Offsets offsets;
};

struct AttentionResults {
  Tensor y, gq, gk, gv;
};

using AttentionCall = std::function<Var(const Var& q, const Var& k, const Var& v, const Offsets& offsets)>;

inline AttentionInputs attention_case(const std::vector<std::int64_t>& lengths, std::int64_t columns,
                                      std::int64_t value_columns, double deviation = 1, DType dtype = DType::f32) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const auto normal = [&](std::int64_t width, std::uint64_t stream, double size) {
    return ops::sample_normal({rows, width}, stream, size).to(dtype);
  };
  return {normal(columns, 1, deviation), normal(columns, 2, deviation), normal(value_columns, 3, 1),
          normal(value_columns, 4, 1), Offsets::from_lengths(lengths)};
}

/// Output and gradients; a gradient that does not exist is undefined.
inline AttentionResults attend(const AttentionCall& attention, const AttentionInputs& in) {
  Tape tape;
  const Var q = tape.input(in.q), k = tape.input(in.k), v = tape.input(in.v);
  Var y;
  {
    const Recording on(tape);
    y = attention(q, k, v, in.offsets);
  }
  const Tensor cotangent = in.cotangent;
  const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
  const auto of = [&](const Var& leaf) { return gradients.contains(leaf) ? gradients[leaf] : Tensor(); };
  return {y.value(), of(q), of(k), of(v)};
}

/// Rows [begin, end) of inputs, as sequences of their own.
inline AttentionInputs rows_of(const AttentionInputs& all, std::int64_t begin, std::int64_t end,
                               const Offsets& offsets) {
  const auto rows = [&](const Tensor& x) { return x.slice(0, begin, end).contiguous(); };
  return {rows(all.q), rows(all.k), rows(all.v), rows(all.cotangent), offsets};
}

inline bool same_rows(const Tensor& a, const Tensor& b, std::int64_t begin, std::int64_t end) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || identical(a.slice(0, begin, end).contiguous(), b.slice(0, begin, end).contiguous());
}

/// Does anything before row `kept` of the one sequence change, by a bit, when everything from there on does, to values
/// `size` times as large? Neither outputs may, nor the gradients that outputs before `kept` send back.
inline bool is_causal(const AttentionCall& attention, AttentionInputs in, std::int64_t kept, double size = 1) {
  AttentionInputs changed = in;
  for (Tensor* each : {&changed.q, &changed.k, &changed.v}) {
    *each = each->clone();
    float* data = each->mutable_data<float>();
    for (std::int64_t i = kept * each->dim(1); i < each->numel(); ++i)
      data[i] = static_cast<float>(size * (0.5 - static_cast<double>(data[i])));
  }
  in.cotangent = in.cotangent.clone();
  float* late = in.cotangent.mutable_data<float>();
  std::fill(late + kept * in.cotangent.dim(1), late + in.cotangent.numel(), 0.0f);
  changed.cotangent = in.cotangent;
  const AttentionResults before = attend(attention, in), after = attend(attention, changed);
  const std::int64_t rows = in.offsets.total();
  const auto quiet = [&](const Tensor& gradient) {
    if (!gradient.defined()) return true;
    for (const double value : gradient.slice(0, kept, rows).contiguous().to_doubles()) {
      if (value != 0) return false;
    }
    return true;
  };
  return same_rows(before.y, after.y, 0, kept) && !same_rows(before.y, after.y, kept, rows) &&
         same_rows(before.gq, after.gq, 0, kept) && same_rows(before.gk, after.gk, 0, kept) &&
         same_rows(before.gv, after.gv, 0, kept) && quiet(before.gq) && quiet(before.gk) && quiet(before.gv);
}

/// Does each sequence give the same bits alone and in company?
inline bool is_independent_of_company(const AttentionCall& attention, const AttentionInputs& in) {
  const AttentionResults all = attend(attention, in);
  const auto part = [](const Tensor& x, std::int64_t begin, std::int64_t end) {
    return x.defined() ? x.slice(0, begin, end).contiguous() : x;
  };
  for (std::int64_t i = 0; i < in.offsets.count(); ++i) {
    const std::int64_t begin = in.offsets.at(i), end = in.offsets.at(i + 1);
    const AttentionResults alone = attend(attention, rows_of(in, begin, end, Offsets::single(end - begin)));
    const auto equal = [&](const Tensor& a, const Tensor& b) {
      return !a.defined() || identical(part(a, begin, end), b);
    };
    if (!equal(all.y, alone.y) || !equal(all.gq, alone.gq) || !equal(all.gk, alone.gk) || !equal(all.gv, alone.gv))
      return false;
  }
  return true;
}

/// Largest difference, relative to the largest magnitude (at least 1).
inline double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  double largest = 1, apart = x.size() == y.size() ? 0 : 1e300;
  for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    largest = std::max(largest, std::abs(x[i]));
    apart = std::isfinite(x[i] - y[i]) ? std::max(apart, std::abs(x[i] - y[i])) : 1e300;
  }
  return apart / largest;
}

}  // namespace tally::testing
