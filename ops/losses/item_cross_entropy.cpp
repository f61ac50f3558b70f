#include "tally/ops/losses/item_cross_entropy.h"

#include <limits>

#include "tally/autograd/tape.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/table_softmax.h"
#include "tally/ops/losses/loss_tokens.h"

namespace tally::ops {
namespace {

constexpr const char* kName = "item_cross_entropy";

struct ItemCrossEntropyRule {
  static constexpr std::string_view name = kName;
  // Gradients for a cotangent of 1, computed with the loss. Backward runs once and hands them on, so it may scale in
  // place.
  mutable Tensor x, table, bias;

  void backward(BackwardContext& g) const {
    const double cotangent = g.cotangent().item();
    const auto give = [&](int input, Tensor& gradient) {
      if (!g.needs(input)) return;
      Gradient scaled = std::move(gradient);
      if (cotangent != 1) scale(scaled, cotangent);
      g.give(input, std::get<Tensor>(std::move(scaled)));
    };
    give(0, x);
    give(1, table);
    give(2, bias);
  }
};

}  // namespace

Var item_cross_entropy(const Var& x, const Var& table, const Tensor& targets, const ItemCrossEntropyOptions& options) {
  check_tokens_and_table(kName, x.value(), table.value());
  const Var& bias = options.bias;
  const std::int64_t items = table.dim(0);
  if (bias.defined()) {
    check<ShapeError>(bias.rank() == 1 && bias.dim(0) == items, kName, "needs a bias for each of ", items,
                      " items; got bias ", bias.shape());
    check<DTypeError>(bias.dtype() == x.dtype(), kName, "needs a bias of ", x.dtype(), "; got ", bias.dtype());
  }
  const LossTokens counted =
      LossTokens::select(kName, targets, options.weights, options.reduction_scale, x.dim(0), items);
  const bool recorded = recording(x, table, bias);
  ItemCrossEntropyRule rule;
  if (recorded && x.tracked()) rule.x = Tensor::zeros(x.shape(), x.dtype());
  if (recorded && table.tracked()) rule.table = Tensor::zeros(table.shape(), x.dtype());
  if (recorded && bias.tracked()) rule.bias = Tensor::zeros(bias.shape(), x.dtype());
  const Tensor rows = x.value().contiguous(), item_rows = table.value().contiguous();
  const Tensor item_bias = bias.defined() ? bias.value().contiguous() : Tensor();
  double loss = 0;
  dispatch_floating(x.dtype(), kName, [&]<class T>(T) {
    const auto writable = [](Tensor& tensor) { return tensor.defined() ? tensor.mutable_data<T>() : nullptr; };
    const kernels::TableSoftmax<T> problem{.x = rows.data<T>(),
                                           .table = item_rows.data<T>(),
                                           .bias = item_bias.defined() ? item_bias.data<T>() : nullptr,
                                           .items = items,
                                           .width = x.dim(1),
                                           .tokens = counted.tokens,
                                           .weights = counted.weights,
                                           .targets = counted.targets};
    const kernels::TableSoftmaxGradients<T> gradients{
        .x = writable(rule.x), .table = writable(rule.table), .bias = writable(rule.bias)};
    loss = kernels::table_softmax(problem, gradients);
  });
  return record(std::move(rule), {&x, &table, &bias}, Tensor::scalar(loss, x.dtype()));
}

void entries::add_item_cross_entropy(Catalog& catalog) {
  catalog.add({
      .name = kName,
      .summary = "Sum over tokens of -log softmax(x table^T + bias)[target], without storing the scores.",
      .inputs = {{"x", "[T, D]"},
                 {"table", "[I, D]"},
                 {"targets", "[T]", InputKind::integer, false, "row of the table; -1: not counted"},
                 {"bias", "[I]", InputKind::differentiable, true},
                 {"weights", "[T]", InputKind::constant, true, "factor of each token's loss", "given, not learned"}},
      .options = {{"reduction_scale", 1.0, "factor of the whole sum"}},
      .outputs = {{"loss", "[]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {item_cross_entropy(
            in[0], in[1], in[2].value(),
            {.bias = in[3], .weights = in[4].value(), .reduction_scale = options.number("reduction_scale", 1)})};
      },
      .samples =
          [] {
            const auto ids = [](std::vector<std::int64_t> values) {
              const auto n = static_cast<std::int64_t>(values.size());
              return Tensor::from(values, {n});
            };
            const double infinity = std::numeric_limits<double>::infinity();
            std::vector<OpSample> samples;
            samples.push_back(
                {"odd", {sample_normal({5, 3}, 1), sample_normal({7, 3}, 2), ids({0, 6, -1, 3, 3}), {}, {}}});
            samples.push_back({"bias and weights",
                               {sample_normal({4, 3}, 3), sample_normal({5, 3}, 4), ids({1, 0, 4, -1}),
                                sample_normal({5}, 5), Tensor::from<double>({0.5, 0, 2, 1}, {4})},
                               {{"reduction_scale", 0.25}}});
            samples.push_back(
                {"i32 targets",
                 {sample_normal({3, 2}, 6), sample_normal({4, 2}, 7), ids({2, -1, 0}).to(DType::i32), {}, {}}});
            samples.push_back(
                {"one", {sample_normal({1, 1}, 8), sample_normal({1, 1}, 9), ids({0}), sample_normal({1}, 10), {}}});
            samples.push_back(
                {"one item", {sample_normal({3, 2}, 11), sample_normal({1, 2}, 12), ids({0, 0, -1}), {}, {}}});
            samples.push_back(
                {"empty", {sample_normal({0, 3}, 13), sample_normal({4, 3}, 14), ids({}), sample_normal({4}, 15), {}}});
            samples.push_back(
                {"all ignored", {sample_normal({2, 3}, 16), sample_normal({4, 3}, 17), ids({-1, -1}), {}, {}}});
            samples.push_back(
                {"no width",
                 {sample_normal({2, 0}, 18), sample_normal({3, 0}, 19), ids({1, 2}), sample_normal({3}, 20), {}}});
            samples.push_back(
                {"ties", {Tensor::zeros({2, 3}, DType::f64), sample_normal({6, 3}, 21), ids({5, 0}), {}, {}}});
            samples.push_back({"two tiles",
                               {sample_normal({130, 2}, 22),
                                sample_normal({4, 2}, 23),
                                sample_integers({130}, 24, 4),
                                sample_normal({4}, 25),
                                {}}});
            samples.push_back(
                {"groups of tiles",
                 {sample_normal({8200, 1}, 34), sample_normal({2, 1}, 35), sample_integers({8200}, 36, 2), {}, {}}});
            samples.push_back({"two blocks",
                               {sample_normal({2, 2}, 28),
                                sample_normal({515, 2}, 29),
                                ids({514, 3}),
                                sample_normal({515}, 30),
                                {}}});
            samples.push_back({"wide",
                               {sample_normal({3, 67}, 31, 0.3), sample_normal({70, 67}, 32, 0.3), ids({69, 3, 0}),
                                sample_normal({70}, 33), Tensor::from<double>({1, 0.5, 2}, {3})}});
            samples.push_back({"extreme",
                               {Tensor::from<double>({1e4, -1e4, 0, 1}, {4, 1}),
                                Tensor::from<double>({1, -1, 0.5}, {3, 1}),
                                ids({1, 0, 2, 2}),
                                {},
                                {}},
                               {},
                               false});
            samples.push_back({"impossible items",
                               {sample_normal({2, 2}, 26),
                                sample_normal({4, 2}, 27),
                                ids({1, 3}),
                                Tensor::from<double>({-infinity, 0, -infinity, 1}, {4}),
                                {}},
                               {},
                               false});
            return samples;
          },
      .errors =
          [] {
            const Tensor x = sample_normal({2, 3}, 1), table = sample_normal({4, 3}, 2);
            const Tensor good = Tensor::from<std::int64_t>({0, 3}, {2});
            return std::vector<OpError>{
                {"width", {x, sample_normal({4, 2}, 1), good, {}, {}}, {}, "of equal D; got x [2, 3] and table [4, 2]"},
                {"target", {x, table, Tensor::from<std::int64_t>({0, 4}, {2}), {}, {}}, {}, "got 4 at position 1"},
                {"negative target",
                 {x, table, Tensor::from<std::int64_t>({-2, 0}, {2}), {}, {}},
                 {},
                 "got -2 at position 0"},
                {"targets",
                 {x, table, Tensor::from<std::int64_t>({0}, {1}), {}, {}},
                 {},
                 "one target for each of 2 tokens"},
                {"target type", {x, table, Tensor::from<std::uint8_t>({0, 1}, {2}), {}, {}}, {}, "i32 or i64; got u8"},
                {"bias", {x, table, good, sample_normal({3}, 1), {}}, {}, "a bias for each of 4 items"},
                {"weights", {x, table, good, {}, sample_normal({3}, 1)}, {}, "one weight for each of 2 tokens"},
                {"weight",
                 {x, table, good, {}, Tensor::full({2}, std::numeric_limits<double>::quiet_NaN(), DType::f64)},
                 {},
                 "finite weights; got nan at position 0"},
                {"scale",
                 {x, table, good, {}, {}},
                 {{"reduction_scale", std::numeric_limits<double>::infinity()}},
                 "finite reduction scale"},
            };
          },
      .large =
          [] {
            return OpSample{"large",
                            {sample_normal({4096, 64}, 1),
                             sample_normal({3416, 64}, 2, 0.1),
                             sample_integers({4096}, 3, 3416),
                             {},
                             {}},
                            {{"reduction_scale", 1.0 / 4096}}};
          },
      .flops =
          [](const OpSample& sample) {
            return 2.0 * static_cast<double>(sample.inputs[0].numel()) * static_cast<double>(sample.inputs[1].dim(0));
          },
      .variations =
          [] {
            return std::vector<OpVariations>{
                {{"items",
                  {sample_normal({4, 3}, 41), sample_normal({5, 3}, 42), Tensor::from<std::int64_t>({1, 0, 4, -1}, {4}),
                   sample_normal({5}, 43), Tensor::from<double>({0.5, 0, 2, 1}, {4})}},
                 {{"reduction_scale", {0.25, -2.0}}}}};
          },
  });
}

}  // namespace tally::ops
