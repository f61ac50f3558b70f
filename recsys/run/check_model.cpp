#include "tally/recsys/run/check_model.h"

#include <algorithm>

#include "tally/nn/attention/attention_kinds.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/losses/item_cross_entropy.h"

namespace tally::recsys {

GradientReport check_model_gradients(const ModelConfig& config, const GradientCheckOptions& options) {
  const ModelRow& row = config.chosen.row();
  if (row.check_differentiable) row.check_differentiable(config.chosen.options);
  constexpr std::int64_t kItems = 12, kLongest = 8;
  ModelConfig small = config;
  const OptionList list = config.chosen.options.list();
  if (const Option* window = list.find("MAX_ITEM_LIST_LENGTH")) {
    if (window->value().as_integer() > kLongest) small.set(window->name, kLongest);
  }
  const auto model = make_sequence_model(small, kItems, options.key.fold_in("weights"));
  std::uint64_t stream = 0;
  for (const auto& [path, tensor] : model->state()) {
    if (!is_floating(tensor->dtype())) continue;
    // Initial values are special points (zero biases, unit norms) and so small that curvature hides: move off them.
    Tensor noise(tensor->shape(), DType::f64);
    fill_normal(options.key.fold_in("noise").fold_in(stream++), noise, 0, 0.1);
    *tensor = tensor->to(DType::f64).clone();
    auto values = tensor->mutable_span<double>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<double>()[i];
  }
  const std::vector<std::vector<std::int32_t>> walks{{3, 1, 4, 1, 5}, {}, {9}, {2, 6, 5}};
  const Sequences batch = cut_to_window(Sequences::from(walks, kItems), model->window());
  Tensor targets({batch.items.numel()}, DType::i32);
  for (std::int64_t i = 0; i < targets.numel(); ++i) {
    targets.mutable_data<std::int32_t>()[i] = static_cast<std::int32_t>((5 * i + 7) % kItems);
  }
  std::vector<CheckedLeaf> leaves;
  for (const auto& [path, parameter] : model->parameters())
    leaves.push_back({path, parameter->value(), parameter->id()});
  const nn::Context context{true, options.key.fold_in("dropout")};
  return check_gradients(
      [&]() -> std::vector<Var> {
        const Prepared prepared = model->prepare(BatchItems::all(kItems));
        const Var hidden = model->encode(batch, prepared, context);
        const Var loss = ops::item_cross_entropy(hidden, model->candidate_table(prepared), targets);
        const Var auxiliary = model->auxiliary_loss(batch, targets, prepared, context);
        return {auxiliary.defined() ? loss + auxiliary : loss};
      },
      leaves, options);
}

}  // namespace tally::recsys
