#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/memory.h"
#include "tally/ops/attention/softmax_attention.h"
#include "tally/ops/catalog.h"
#include "tally/ops/lookup/causal_lookup.h"
#include "tally/ops/lookup/outer_sums.h"
#include "tally/ops/lookup/softmax_lookup.h"
#include "tally/ops/lookup/symmetric_lookup.h"
#include "tests/ops/attention_cases.h"

namespace lookup_test {

using namespace tally;
using namespace tally::testing;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Inputs of lookups: q, f, log_decay, gain, values.
struct Case {
  std::vector<Tensor> inputs;
  Tensor places;
  Offsets offsets;
};

Tensor gate(std::int64_t rows, std::uint64_t stream, const std::function<double(double)>& f) {
  Tensor values = ops::sample_normal({rows}, stream);
  for (double& x : values.mutable_span<double>()) x = f(x);
  return values;
}

Case make_case(const std::vector<std::int64_t>& lengths, Tensor places, std::int64_t width, std::int64_t value_width,
               double strength, DType dtype) {
  const Offsets offsets = Offsets::from_lengths(lengths);
  const std::int64_t rows = offsets.total();
  return {{ops::sample_normal({places.numel(), width}, 1).to(dtype), ops::sample_normal({rows, width}, 2).to(dtype),
           gate(rows, 3, [&](double x) { return -strength * std::abs(x); }).to(dtype),
           gate(rows, 4, [](double x) { return 1 / (1 + std::exp(-x)); }).to(dtype),
           ops::sample_normal({rows, value_width}, 5).to(dtype)},
          std::move(places),
          offsets};
}

Tensor integers(const std::vector<std::int64_t>& values) {
  return Tensor::from(values, {static_cast<std::int64_t>(values.size())});
}

using Call = std::function<Var(const std::vector<Var>&)>;

struct Results {
  Tensor y;
  std::vector<Tensor> gradients;  ///< undefined where there is none
};

Results run(const Call& call, const std::vector<Tensor>& inputs, std::uint64_t stream = 9) {
  Tape tape;
  std::vector<Var> vars;
  for (const Tensor& input : inputs) vars.push_back(input.defined() ? tape.input(input) : Var());
  Var y;
  {
    const Recording on(tape);
    y = call(vars);
  }
  const Tensor cotangent = ops::sample_normal(y.shape(), stream).to(y.dtype());
  const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
  Results results{y.value(), {}};
  for (const Var& var : vars)
    results.gradients.push_back(var.defined() && gradients.contains(var) ? gradients[var] : Tensor());
  return results;
}

void check_close(const Results& a, const Results& b, double tolerance) {
  CHECK(largest_difference(a.y, b.y) < tolerance);
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    INFO("input " << i);
    REQUIRE(a.gradients[i].defined() == b.gradients[i].defined());
    if (a.gradients[i].defined()) CHECK(largest_difference(a.gradients[i], b.gradients[i]) < tolerance);
  }
}

/// k = v = f.
Call causal(const Tensor& places, const Offsets& offsets) {
  return [=](const std::vector<Var>& in) {
    return ops::causal_lookup(in[0], in[1], in[1], in[2], in[3], places, offsets);
  };
}
/// v apart.
Call causal_with_values(const Tensor& places, const Offsets& offsets) {
  return [=](const std::vector<Var>& in) {
    return ops::causal_lookup(in[0], in[1], in[4], in[2], in[3], places, offsets);
  };
}

/// The recurrence of causal_lookup() in double, row by row with every state kept, and its derivative.
struct PlainLoop {
  std::size_t width, value_width;
  std::vector<double> y, gq, gk, gv, glog, ggain;

  PlainLoop(const Case& in, std::uint64_t stream = 9) {
    const std::vector<double> q = in.inputs[0].to_doubles(), k = in.inputs[1].to_doubles(),
                              log_decay = in.inputs[2].to_doubles(), gain = in.inputs[3].to_doubles(),
                              v = in.inputs[4].to_doubles();
    const std::vector<std::int64_t> places(in.places.span<std::int64_t>().begin(),
                                           in.places.span<std::int64_t>().end());
    width = static_cast<std::size_t>(in.inputs[1].dim(1));
    value_width = static_cast<std::size_t>(in.inputs[4].dim(1));
    const std::size_t rows = log_decay.size(), size = width * value_width;
    std::vector<std::vector<std::size_t>> at(rows);
    for (std::size_t j = 0; j < places.size(); ++j) at[static_cast<std::size_t>(places[j])].push_back(j);
    y.resize(places.size() * value_width);
    gq.resize(q.size()), gk.resize(k.size()), gv.resize(v.size()), glog.resize(rows), ggain.resize(rows);
    const std::vector<double> g =
        ops::sample_normal({in.places.numel(), in.inputs[4].dim(1)}, stream).to(in.inputs[0].dtype()).to_doubles();
    std::vector<double> states((rows + 1) * size);
    for (std::size_t t = 0; t < rows; ++t) {
      const double *before = states.data() + t * size, a = std::exp(log_decay[t]);
      double* state = states.data() + (t + 1) * size;
      for (std::size_t i = 0; i < width; ++i) {
        for (std::size_t c = 0; c < value_width; ++c)
          state[i * value_width + c] =
              a * before[i * value_width + c] + gain[t] * k[t * width + i] * v[t * value_width + c];
      }
      for (const std::size_t j : at[t]) {
        for (std::size_t i = 0; i < width; ++i) {
          for (std::size_t c = 0; c < value_width; ++c) {
            y[j * value_width + c] += state[i * value_width + c] * q[j * width + i];
            gq[j * width + i] += state[i * value_width + c] * g[j * value_width + c];
          }
        }
      }
    }
    std::vector<double> slope(size);
    for (std::size_t t = rows; t-- > 0;) {
      const double *before = states.data() + t * size, a = std::exp(log_decay[t]);
      for (std::size_t i = 0; i < width; ++i) {
        for (std::size_t c = 0; c < value_width; ++c) {
          double& each = slope[i * value_width + c];
          for (const std::size_t j : at[t]) each += q[j * width + i] * g[j * value_width + c];
          gk[t * width + i] += gain[t] * each * v[t * value_width + c];
          gv[t * value_width + c] += gain[t] * each * k[t * width + i];
          ggain[t] += each * k[t * width + i] * v[t * value_width + c];
          glog[t] += a * each * before[i * value_width + c];
          each *= a;
        }
      }
    }
  }

  Results results(const Case& in) const {
    const auto as = [&](const std::vector<double>& values, const Shape& shape) { return Tensor::from(values, shape); };
    return {as(y, {in.places.numel(), in.inputs[4].dim(1)}),
            {as(gq, in.inputs[0].shape()), as(gk, in.inputs[1].shape()), as(glog, in.inputs[2].shape()),
             as(ggain, in.inputs[3].shape()), as(gv, in.inputs[4].shape())}};
  }
};

}  // namespace

TEST_CASE("a lookup at the end of a document is one in its representation", "[lookup]") {
  // Also of a document that is empty or of one row, several times, and with a state that is cleared in between.
  const std::vector<std::int64_t> lengths{70, 0, 1, 200, 3};
  Case in = make_case(lengths, integers({69, 69, 70, 270, 270, 270, 273}), 7, 7, 0.05, DType::f64);
  in.inputs[2].mutable_data<double>()[100] = -kInfinity;
  in.inputs[2].mutable_data<double>()[272] = -kInfinity;
  const std::vector<std::int64_t> counts{2, 0, 1, 3, 1};
  const Offsets queries = Offsets::from_lengths(counts);
  const Call by_representation = [&](const std::vector<Var>& v) {
    return ops::symmetric_lookup(ops::outer_sums(v[1], v[2], v[3], {}, in.offsets), v[0], queries);
  };
  in.inputs.pop_back();
  check_close(run(causal(in.places, in.offsets), in.inputs), run(by_representation, in.inputs), 1e-10);
  for (const std::size_t absent : {2, 3}) {
    in.inputs[absent] = Tensor();
    check_close(run(causal(in.places, in.offsets), in.inputs), run(by_representation, in.inputs), 1e-10);
  }
}

TEST_CASE("a representation that is resumed is that of the whole document", "[lookup]") {
  const std::vector<std::int64_t> firsts{40, 0, 5, 300}, seconds{30, 7, 0, 2500};
  std::vector<std::int64_t> whole, first_rows, second_rows;
  std::int64_t row = 0;
  for (std::size_t d = 0; d < firsts.size(); ++d) {
    whole.push_back(firsts[d] + seconds[d]);
    for (std::int64_t t = 0; t < whole.back(); ++t, ++row) (t < firsts[d] ? first_rows : second_rows).push_back(row);
  }
  const Case in = make_case(whole, integers({}), 5, 5, 0.001, DType::f64);
  const auto rows_of = [](const Tensor& x, const std::vector<std::int64_t>& rows) {
    std::vector<double> values;
    const std::vector<double> all = x.to_doubles();
    const std::size_t columns = all.size() / static_cast<std::size_t>(x.dim(0));
    for (const std::int64_t r : rows) {
      const auto from = all.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(r) * columns);
      values.insert(values.end(), from, from + static_cast<std::ptrdiff_t>(columns));
    }
    const auto count = static_cast<std::int64_t>(rows.size());
    return Tensor::from(values, x.rank() == 1 ? Shape{count} : Shape{count, x.dim(1)});
  };
  const Results all =
      run([&](const std::vector<Var>& v) { return ops::outer_sums(v[0], v[1], v[2], v[3], in.offsets); },
          {in.inputs[1], in.inputs[2], in.inputs[3], ops::sample_normal({4, 15}, 8)});
  std::vector<Tensor> parts;
  for (const auto* rows : {&first_rows, &second_rows}) {
    for (const std::size_t i : {1, 2, 3}) parts.push_back(rows_of(in.inputs[i], *rows));
  }
  parts.push_back(ops::sample_normal({4, 15}, 8));
  const Results resumed = run(
      [&](const std::vector<Var>& v) {
        const Var first = ops::outer_sums(v[0], v[1], v[2], v[6], Offsets::from_lengths(firsts));
        return ops::outer_sums(v[3], v[4], v[5], first, Offsets::from_lengths(seconds));
      },
      parts);
  CHECK(largest_difference(all.y, resumed.y) < 1e-12);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(largest_difference(rows_of(all.gradients[i], first_rows), resumed.gradients[i]) < 1e-12);
    CHECK(largest_difference(rows_of(all.gradients[i], second_rows), resumed.gradients[i + 3]) < 1e-12);
  }
  CHECK(largest_difference(all.gradients[3], resumed.gradients[6]) < 1e-12);
}

TEST_CASE("lookups in 10^5 rows agree with a plain loop in double", "[lookup]") {
  const std::int64_t rows = 100000;
  std::vector<std::int64_t> places{rows - 1, 0, rows / 2};
  const Tensor drawn = ops::sample_integers({200}, 3, rows);
  for (const std::int64_t place : drawn.span<std::int64_t>()) places.push_back(place);
  for (const double strength : {1e-4, 0.01, 2.0}) {
    INFO("decay of strength " << strength);
    for (const DType dtype : {DType::f64, DType::f32}) {
      const Case in = make_case({rows}, integers(places), 6, 5, strength, dtype);
      check_close(PlainLoop(in).results(in), run(causal_with_values(in.places, in.offsets), in.inputs),
                  dtype == DType::f64 ? 1e-12 : 3e-6);
    }
  }
}

TEST_CASE("a decay of 0 is minus infinity", "[lookup]") {
  // e^-800 is 0 as well, and its derivative can be measured (the catalog does): all results must be the same bits.
  const Tensor places = integers({199, 10, 63, 64, 65, 128, 130, 150, 202});
  const auto with = [&](double log_decay) {
    Case in = make_case({200, 3}, places, 3, 4, 0.05, DType::f64);
    for (const std::int64_t row : {0, 11, 63, 64, 127, 129, 150, 200, 201})
      in.inputs[2].mutable_data<double>()[row] = log_decay;
    return in;
  };
  const Case far = with(-800), infinite = with(-kInfinity);
  const std::vector<Call> calls{causal_with_values(places, far.offsets), [&](const std::vector<Var>& in) {
                                  return ops::outer_sums(in[1], in[2], in[3], {}, far.offsets);
                                }};
  for (const Call& call : calls) {
    const Results a = run(call, far.inputs), b = run(call, infinite.inputs);
    CHECK(identical(a.y, b.y));
    for (std::size_t i = 0; i < a.gradients.size(); ++i) {
      if (a.gradients[i].defined()) CHECK(identical(a.gradients[i], b.gradients[i]));
    }
    const std::vector<double> slopes = b.gradients[2].to_doubles();
    for (const std::size_t row : {0, 11, 63, 64, 127, 129, 150, 200, 201}) CHECK(slopes[row] == 0);
    CHECK(slopes[199] != 0);
  }
}

TEST_CASE("one Var as keys and values gets the sum of their gradients", "[lookup]") {
  for (const bool gated : {true, false}) {
    Case in = make_case({150, 2, 0, 40}, integers({149, 3, 150, 3, 70, 180}), 5, 5, 0.05, DType::f64);
    if (!gated) in.inputs[2] = in.inputs[3] = Tensor();
    in.inputs[4] = in.inputs[1];
    const Results one = run(causal(in.places, in.offsets), in.inputs),
                  two = run(causal_with_values(in.places, in.offsets), in.inputs);
    CHECK(identical(one.y, two.y));
    for (const std::size_t i : {0, 2, 3}) {
      if (one.gradients[i].defined()) CHECK(identical(one.gradients[i], two.gradients[i]));
    }
    const std::vector<double> sum = one.gradients[1].to_doubles(), k = two.gradients[1].to_doubles(),
                              v = two.gradients[4].to_doubles();
    for (std::size_t i = 0; i < sum.size(); ++i) CHECK(sum[i] == k[i] + v[i]);
  }
}

TEST_CASE("documents are the same bits alone and in company, and lookups in any order", "[lookup]") {
  const std::vector<std::int64_t> lengths{5, 0, 130, 1, 2500, 33};
  std::vector<std::int64_t> places(300);
  std::iota(places.begin(), places.end(), 0);
  for (std::int64_t& place : places) place = place * 1289 % 2669;  // each once, in no order
  const Case in = make_case(lengths, integers(places), 6, 7, 0.01, DType::f32);
  // Rows' part of every result, by the lookups of one document.
  const auto part = [&](std::int64_t d) {
    std::vector<std::int64_t> own, local;
    for (std::size_t j = 0; j < places.size(); ++j) {
      if (places[j] < in.offsets.at(d) || places[j] >= in.offsets.at(d + 1)) continue;
      own.push_back(static_cast<std::int64_t>(j));
      local.push_back(places[j] - in.offsets.at(d));
    }
    return std::pair(own, local);
  };
  const auto take = [](const Tensor& x, const std::vector<std::int64_t>& rows) {
    Tensor to({static_cast<std::int64_t>(rows.size()), x.dim(1)}, x.dtype());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(x.data<float>() + rows[i] * x.dim(1), x.dim(1),
                  to.mutable_data<float>() + static_cast<std::int64_t>(i) * x.dim(1));
    }
    return to;
  };
  // Cotangents are drawn by place in the tensor: squares of results have ones of their own.
  using Lookup = std::function<Var(const std::vector<Var>&, const Tensor&, const Offsets&)>;
  const std::vector<Lookup> lookups{[](const std::vector<Var>& v, const Tensor& at, const Offsets& offsets) {
                                      return ops::causal_lookup(v[0], v[1], v[4], v[2], v[3], at, offsets);
                                    },
                                    [](const std::vector<Var>& v, const Tensor& at, const Offsets& offsets) {
                                      return ops::softmax_lookup(v[0], v[1], v[4], at, offsets, {.scale = 0.5});
                                    }};
  const auto results = [](const Lookup& lookup, const Case& each) {
    Tape tape;
    std::vector<Var> vars;
    for (const Tensor& input : each.inputs) vars.push_back(tape.input(input));
    Var y;
    {
      const Recording on(tape);
      y = lookup(vars, each.places, each.offsets);
    }
    const Tensor cotangent = y.value();
    const Gradients gradients = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
    Results all{y.value(), {}};
    for (const Var& var : vars) all.gradients.push_back(gradients.contains(var) ? gradients[var] : Tensor());
    return all;
  };
  for (const Lookup& lookup : lookups) {
    const Results all = results(lookup, in);
    for (std::int64_t d = 0; d < in.offsets.count(); ++d) {
      const auto [own, local] = part(d);
      const std::int64_t begin = in.offsets.at(d), end = in.offsets.at(d + 1);
      Case alone{{take(in.inputs[0], own)}, integers(local), Offsets::single(end - begin)};
      for (std::size_t i = 1; i < in.inputs.size(); ++i)
        alone.inputs.push_back(in.inputs[i].slice(0, begin, end).contiguous());
      const Results one = results(lookup, alone);
      CHECK(identical(take(all.y, own), one.y));
      CHECK(identical(take(all.gradients[0], own), one.gradients[0]));
      for (std::size_t i = 1; i < in.inputs.size(); ++i) {
        if (!one.gradients[i].defined()) continue;
        CHECK(identical(all.gradients[i].slice(0, begin, end).contiguous(), one.gradients[i]));
      }
    }
    // In the order of their places.
    std::vector<std::int64_t> order(places.size()), sorted;
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return places[static_cast<std::size_t>(a)] < places[static_cast<std::size_t>(b)];
    });
    for (const std::int64_t j : order) sorted.push_back(places[static_cast<std::size_t>(j)]);
    Case ordered{in.inputs, integers(sorted), in.offsets};
    ordered.inputs[0] = take(in.inputs[0], order);
    const Results again = results(lookup, ordered);
    CHECK(identical(take(all.y, order), again.y));
    CHECK(identical(take(all.gradients[0], order), again.gradients[0]));
    CHECK(identical(all.gradients[1], again.gradients[1]));
  }
}

TEST_CASE("softmax lookups at every row are causal softmax attention", "[lookup]") {
  const std::vector<std::int64_t> lengths{700, 1, 0, 90};
  const std::int64_t rows = 791;
  std::vector<std::int64_t> places(static_cast<std::size_t>(rows)), inverse(places.size());
  for (std::size_t i = 0; i < places.size(); ++i) {
    places[i] = static_cast<std::int64_t>(i) * 100 % rows;
    inverse[static_cast<std::size_t>(places[i])] = static_cast<std::int64_t>(i);
  }
  const Case in = make_case(lengths, integers(places), 6, 5, 0, DType::f64);
  const auto in_order = [&](const Tensor& x, const std::vector<std::int64_t>& order) {
    Tensor to(x.shape(), DType::f64);
    for (std::int64_t i = 0; i < rows; ++i)
      std::copy_n(x.data<double>() + order[static_cast<std::size_t>(i)] * x.dim(1), x.dim(1),
                  to.mutable_data<double>() + i * x.dim(1));
    return to;
  };
  // The cotangents of an attention's rows are those of the lookups there.
  const auto differentiate = [&](const Call& call, const std::vector<Tensor>& inputs, const Tensor& cotangent) {
    Tape tape;
    std::vector<Var> vars;
    for (const Tensor& input : inputs) vars.push_back(tape.input(input));
    Var y;
    {
      const Recording on(tape);
      y = call(vars);
    }
    const Gradients g = tape.backward(std::span<const Var>(&y, 1), std::span<const Tensor>(&cotangent, 1));
    return Results{y.value(), {g[vars[0]], g[vars[1]], g[vars[2]]}};
  };
  const Tensor cotangent = ops::sample_normal({rows, 5}, 12);
  const Results lookups = differentiate(
      [&](const std::vector<Var>& v) {
        return ops::softmax_lookup(v[0], v[1], v[2], in.places, in.offsets, {.scale = 0.4});
      },
      {in.inputs[0], in.inputs[1], in.inputs[4]}, cotangent);
  const Results attention = differentiate(
      [&](const std::vector<Var>& v) { return ops::softmax_attention(v[0], v[1], v[2], in.offsets, {.scale = 0.4}); },
      {in_order(in.inputs[0], inverse), in.inputs[1], in.inputs[4]}, in_order(cotangent, inverse));
  CHECK(largest_difference(lookups.y, in_order(attention.y, places)) < 1e-13);
  CHECK(largest_difference(lookups.gradients[0], in_order(attention.gradients[0], places)) < 1e-13);
  CHECK(largest_difference(lookups.gradients[1], attention.gradients[1]) < 1e-13);
  CHECK(largest_difference(lookups.gradients[2], attention.gradients[2]) < 1e-13);
}

TEST_CASE("sums over many rows keep the precision of f32", "[lookup]") {
  // Rows with a mean: what a running sum in f32 loses grows with their number, about 1e-4 here.
  const std::int64_t rows = 200000, width = 3;
  Tensor f = ops::sample_normal({rows, width}, 1);
  for (double& x : f.mutable_span<double>()) x += 1;
  const Tensor narrow = f.to(DType::f32), wide = narrow.to(DType::f64);
  const Offsets offsets = Offsets::single(rows);
  CHECK(largest_difference(ops::outer_sums(wide, {}, {}, {}, offsets).value(),
                           ops::outer_sums(narrow, {}, {}, {}, offsets).value()) < 2e-7);
  // The same of the queries of one document, in the gradient of its representation.
  const auto of_packed = [&](const Tensor& q) {
    const Tensor packed = ops::sample_normal({1, width * (width + 1) / 2}, 2).to(q.dtype());
    return run([&](const std::vector<Var>& v) { return ops::symmetric_lookup(v[0], v[1], offsets); }, {packed, q})
        .gradients[0];
  };
  CHECK(largest_difference(of_packed(wide), of_packed(narrow)) < 2e-7);
}

TEST_CASE("a long document stores no state of its rows", "[lookup]") {
  const std::int64_t rows = 16384, width = 64;
  std::vector<std::int64_t> everywhere(static_cast<std::size_t>(rows));
  for (std::int64_t i = 0; i < rows; ++i) everywhere[static_cast<std::size_t>(i)] = (rows - 1 - i) / 2 * 2;
  const auto bytes_of = [](const std::vector<Tensor>& tensors) {
    std::int64_t bytes = 0;
    for (const Tensor& each : tensors) bytes += each.defined() ? static_cast<std::int64_t>(each.bytes()) : 0;
    return bytes;
  };
  // What is alive at once, over inputs, outputs and the gradients of both.
  const auto share = [&](const Call& call, const std::vector<Tensor>& inputs) {
    const MemoryScope scope;
    const Results results = run(call, inputs);
    return static_cast<double>(bytes_of(inputs) + scope.peak()) /
           static_cast<double>(2 * bytes_of(inputs) + 2 * static_cast<std::int64_t>(results.y.bytes()));
  };
  for (const Tensor& places : {integers(everywhere), integers({rows - 1, 5000, 77})}) {
    Case in = make_case({rows}, places, width, width, 0.001, DType::f32);
    INFO(places.numel() << " lookups");
    CHECK(share(causal_with_values(in.places, in.offsets), in.inputs) < 1.5);
    in.inputs.pop_back();
    CHECK(share(causal(in.places, in.offsets), in.inputs) < 1.5);
    in.inputs[2] = in.inputs[3] = Tensor();
    CHECK(share(causal(in.places, in.offsets), in.inputs) < 1.5);
  }
  const Case in = make_case({rows}, integers({}), width, width, 0.001, DType::f32);
  const Offsets offsets = Offsets::single(rows);
  CHECK(share([&](const std::vector<Var>& v) { return ops::outer_sums(v[0], v[1], v[2], {}, offsets); },
              {in.inputs[1], in.inputs[2], in.inputs[3]}) < 1.5);
  // Of softmax no matrix of lookups and rows: 64 MB here.
  const std::int64_t fewer = 4096;
  const Tensor places = integers({everywhere.end() - fewer, everywhere.end()});
  const Case read = make_case({fewer}, places, width, width, 0, DType::f32);
  CHECK(share(
            [&](const std::vector<Var>& v) {
              return ops::softmax_lookup(v[0], v[1], v[2], places, read.offsets, {.scale = 0.1});
            },
            {read.inputs[0], read.inputs[1], read.inputs[4]}) < 1.5);
}

TEST_CASE("work grows with the rows that are looked up, and half of a symmetric product is done", "[lookup]") {
  const auto operations = [](const std::function<void()>& body) {
    const std::uint64_t before = blas::operations();
    body();
    return static_cast<double>(blas::operations() - before);
  };
  const auto causal_work = [&](std::int64_t rows, const std::vector<std::int64_t>& places) {
    const Case in = make_case({rows}, integers(places), 32, 32, 0.01, DType::f32);
    return operations([&] { run(causal_with_values(in.places, in.offsets), in.inputs); });
  };
  CHECK(causal_work(20000, {500, 3}) == causal_work(501, {500, 3}));
  CHECK(causal_work(16384, {16383}) < 2.05 * causal_work(8192, {8191}));
  // A lookup more is the product of a state and a vector, and of a chunk and one, each way: no more work by the rows.
  CHECK(causal_work(16384, {16383, 16382}) - causal_work(16384, {16383}) < 20.0 * 32 * (32 + 64));
  const Case in = make_case({4096}, integers({}), 256, 1, 0.01, DType::f32);
  const double work = operations([&] { ops::outer_sums(in.inputs[1], in.inputs[2], in.inputs[3], {}, in.offsets); });
  CHECK(work < 0.65 * 2 * 4096 * 256 * 256);
  CHECK(work > 0.5 * 2 * 4096 * 256 * 256);
}

}  // namespace lookup_test
