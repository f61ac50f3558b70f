// An op of one's own in one file: kernel, rule, function, catalog entry. The entry alone brings the commands.
#include <iostream>

#include "tally/autograd/tape.h"
#include "tally/core/offsets.h"
#include "tally/ops/check.h"
#include "tally/tools/op_commands.h"

using namespace tally;

namespace {

// The kernel: plain loops over raw memory, for packed sequences of any length.
template <class T>
void scan(const T* x, const T* decay, const Offsets& offsets, std::int64_t width, T* y) {
  for (std::int64_t s = 0; s < offsets.count(); ++s) {
    for (std::int64_t i = offsets.at(s) * width; i < offsets.at(s + 1) * width; ++i) {
      const bool first = i < (offsets.at(s) + 1) * width;
      y[i] = x[i] + (first ? T{0} : decay[i % width] * y[i - width]);
    }
  }
}

template <class T>
void scan_back(const T* gy, const T* y, const T* decay, const Offsets& offsets, std::int64_t width, T* gx, double* gd) {
  for (std::int64_t s = 0; s < offsets.count(); ++s) {
    for (std::int64_t i = offsets.at(s + 1) * width - 1; i >= offsets.at(s) * width; --i) {
      const bool first = i < (offsets.at(s) + 1) * width, last = i >= (offsets.at(s + 1) - 1) * width;
      gx[i] = last ? gy[i] : gy[i] + decay[i % width] * gx[i + width];
      if (!first) gd[i % width] += double{gx[i]} * y[i - width];
    }
  }
}

// The rule: what is kept, and how the output's gradient becomes those of the inputs.
struct LeakySumRule {
  static constexpr std::string_view name = "leaky_sum";
  Offsets offsets;
  Saved bounds, y, decay;  // bounds: of the offsets, so that ones overwritten since are refused
  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    Tensor gx(gy.shape(), gy.dtype()), gdecay = Tensor::zeros({gy.dim(1)}, DType::f64);  // long sums go in double
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      scan_back(gy.data<T>(), y.get().data<T>(), decay.get().data<T>(), offsets, gy.dim(1), gx.mutable_data<T>(),
                gdecay.mutable_data<double>());
    });
    g.give(0, gx);
    g.give(1, gdecay.to(gy.dtype()));
  }
};

/// y_t = x_t + decay y_(t-1) within each sequence: x [T, D], decay [D], offsets [N + 1]. Keeps offsets, y, decay.
Var leaky_sum(const Var& x, const Var& decay, const Offsets& offsets) {
  check<ShapeError>(x.rank() == 2 && decay.shape() == Shape{x.dim(1)} && x.dtype() == decay.dtype(), "leaky_sum",
                    "needs x [T, D] and decay [D] of one type; got ", x.dtype(), x.shape(), " and ", decay.dtype(),
                    decay.shape());
  offsets.check_rows(x.dim(0), "leaky_sum");
  Tensor rows = x.value().contiguous(), factors = decay.value().contiguous(), y(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), "leaky_sum", [&]<class T>(T) {
    scan(rows.data<T>(), factors.data<T>(), offsets, x.dim(1), y.mutable_data<T>());
  });
  return record(LeakySumRule{offsets, Saved(offsets.tensor()), Saved(y), Saved(factors)}, {&x, &decay}, y);
}

// The entry: how to call the op, and inputs worth trying.
ops::Catalog catalog_with_leaky_sum() {
  ops::Catalog catalog = ops::standard_catalog();
  const auto sample = [](std::string name, std::vector<std::int64_t> lengths, std::int64_t width) -> ops::OpSample {
    const Offsets offsets = Offsets::from_lengths(lengths);
    const Tensor x = ops::sample_normal({offsets.total(), width}, 1), decay = ops::sample_normal({width}, 2, 0.5);
    return {std::move(name), {x, decay, offsets.tensor()}};
  };
  const auto large = [sample] { return sample("large", {2000, 0, 50}, 64); };
  catalog.add({.name = "leaky_sum",
               .summary = "y_t = x_t + decay y_(t-1) within each sequence.",
               .inputs = {{"x", "[T, D]"}, {"decay", "[D]"}, {"offsets", "[N + 1]", ops::InputKind::integer}},
               .outputs = {{"y", "[T, D]"}},
               .call = [](std::span<const Var> in, const ops::OpOptions&) -> std::vector<Var> {
                 return {leaky_sum(in[0], in[1], Offsets(in[2].value()))};
               },
               .samples = [=]() -> std::vector<ops::OpSample> {
                 return {sample("odd", {3, 0, 1, 5}, 3), sample("long", {200}, 2), sample("wide", {4, 2}, 67),
                         sample("empty", {}, 4)};
               },
               .errors = [=]() -> std::vector<ops::OpError> {
                 ops::OpSample wrong = sample("width", {3}, 2);
                 wrong.inputs[1] = ops::sample_normal({5}, 1);
                 return {{"width", wrong.inputs, {}, "needs x [T, D] and decay [D]"}};
               },
               .large = large});
  return catalog;
}

}  // namespace

int main(int argc, char** argv) {
  const ops::Catalog catalog = catalog_with_leaky_sum();
  if (argc > 1) return tools::op_commands(catalog, argc, argv);  // own_op check | gradcheck | apply | ops | bench ...
  const char* const check[] = {"own_op", "check", "leaky_sum", "--strict"};
  const auto wrong = ops::check_entry(catalog.find("leaky_sum"), {.injected_bug = 1.001}).verdict;
  const bool passes = tools::op_commands(catalog, 4, check) == 0, finds = wrong == ops::EntryVerdict::fail;
  std::cout << "contract kept: " << passes << ", a gradient 0.1 % too large is found: " << finds << '\n';
  return passes && finds ? 0 : 1;
}
