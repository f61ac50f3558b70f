#include "tally/ops/recurrent/decayed_sum.h"

#include <cmath>
#include <optional>

#include "tally/autograd/tape.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/decayed_sum.h"

namespace tally::ops {
namespace {

constexpr const char* kName = "decayed_sum";

struct DecayedSumRule {
  static constexpr std::string_view name = kName;
  Offsets offsets;
  double rate;
  Shape rate_shape;
  Saved y;
  Saved bounds;  // of the offsets: refuses ones that were overwritten

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    const double factor = std::exp(-rate);
    dispatch_floating(gy.dtype(), kName, [&]<class T>(T) {
      Tensor gx(gy.shape(), gy.dtype());
      kernels::decayed_sum(offsets.bounds(), gy.dim(1), factor, true, gy.data<T>(), gx.mutable_data<T>());
      if (g.needs(1)) {
        const double slope = kernels::decayed_sum_slope(offsets.bounds(), gy.dim(1), gx.data<T>(), y.get().data<T>());
        g.give(1, Tensor::full(rate_shape, -rate * factor * slope, gy.dtype()));
      }
      if (g.needs(0)) g.give(0, std::move(gx));
    });
  }
};

}  // namespace

Var decayed_sum(const Var& x, const Var& log_decay, const Offsets& offsets) {
  check<DTypeError>(is_floating(x.dtype()) && (!log_decay.defined() || log_decay.dtype() == x.dtype()), kName,
                    "needs x and log_decay of one floating type; got x ", x.dtype(),
                    log_decay.defined() ? ", log_decay " : "", log_decay.defined() ? name_of(log_decay.dtype()) : "");
  check<ShapeError>(x.rank() == 2, kName, "needs x [T, D]; got ", x.shape());
  check<ShapeError>(!log_decay.defined() || log_decay.numel() == 1, kName, "needs one element of log_decay; got ",
                    log_decay.defined() ? log_decay.shape() : Shape{});
  offsets.check_rows(x.dim(0), kName);
  const double rate = log_decay.defined() ? std::exp(log_decay.value().item()) : 0;
  check<ValueError>(std::isfinite(rate), kName, "needs a log_decay whose exponential is finite; got ",
                    log_decay.defined() ? log_decay.value().item() : 0);
  const Tensor rows = x.value().contiguous();
  Tensor y(x.shape(), x.dtype());
  dispatch_floating(x.dtype(), kName, [&]<class T>(T) {
    kernels::decayed_sum(offsets.bounds(), x.dim(1), std::exp(-rate), false, rows.data<T>(), y.mutable_data<T>());
  });
  DecayedSumRule rule{offsets, rate, log_decay.defined() ? log_decay.shape() : Shape{},
                      Saved(y, log_decay.defined() && log_decay.tracked()), Saved(offsets.tensor())};
  return record(std::move(rule), {&x, &log_decay}, std::move(y));
}

void entries::add_decayed_sum(Catalog& catalog) {
  const auto sample = [](std::string name, std::vector<std::int64_t> lengths, std::int64_t width,
                         std::optional<double> log_decay) -> OpSample {
    const Offsets offsets = Offsets::from_lengths(lengths);
    const Tensor decay = log_decay ? Tensor::from<double>({*log_decay}, {1}) : Tensor();
    return {std::move(name), {sample_normal({offsets.total(), width}, 1), decay, offsets.tensor()}};
  };
  catalog.add({
      .name = kName,
      .summary = "The decayed sum of the rows up to each row of a packed sequence.",
      .inputs = {{"x", "[T, D]"},
                 {"log_decay", "[1]", InputKind::differentiable, true, "logarithm of the rate; absent: no decay"},
                 {"offsets", "[N + 1]", InputKind::integer}},
      .outputs = {{"y", "[T, D]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        return {decayed_sum(in[0], in[1], Offsets(in[2].value()))};
      },
      .samples =
          [=] {
            return std::vector<OpSample>{sample("odd", {3, 0, 1, 5}, 3, -1.0),
                                         sample("no decay", {4, 2}, 5, {}),
                                         sample("long", {300}, 2, -2.3),
                                         sample("fast", {6}, 2, 4.0),
                                         sample("two blocks", {7, 40}, 67, -0.5),
                                         sample("one", {1}, 1, 0.0),
                                         sample("empty", {}, 4, -1.0),
                                         sample("no columns", {3}, 0, -1.0),
                                         sample("many", std::vector<std::int64_t>(40, 2), 3, 0.3)};
          },
      .errors =
          [] {
            const std::vector<std::int64_t> three{3}, four{4};
            const Tensor x = sample_normal({3, 2}, 1), offsets = Offsets::from_lengths(three).tensor();
            return std::vector<OpError>{
                {"rank", {sample_normal({3}, 1), {}, offsets}, {}, "needs x [T, D]; got [3]"},
                {"decays", {x, sample_normal({2}, 1), offsets}, {}, "one element of log_decay; got [2]"},
                {"rate", {x, Tensor::from<double>({1000}, {1}), offsets}, {}, "whose exponential is finite; got 1000"},
                {"rows", {x, {}, Offsets::from_lengths(four).tensor()}, {}, "decayed_sum"}};
          },
      .large = [=] { return sample("large", std::vector<std::int64_t>(128, 200), 128, -2.3); },
  });
}

}  // namespace tally::ops
