#include "tally/recsys/run/check_model.h"

#include <algorithm>

#include "tally/ops/elementwise/elementwise.h"

namespace tally::recsys {

namespace {

constexpr std::int64_t kItems = 12, kLongest = 8, kNegatives = 4;

/// The options of a choice, where the named one is above `most`, with that.
template <class Row>
Choice<Row> limited(Choice<Row> choice, const std::string& key, std::int64_t most) {
  const OptionList list = choice.options.list();
  const Option* option = list.find(key);
  if (option != nullptr && option->value().as_integer() > most) {
    set_option([&choice] { return choice.options.list(); }, choice.table().of(), key, most);
  }
  return choice;
}

}  // namespace

GradientReport check_model_gradients(const ModelConfig& config, const Choice<LossRow>& loss_choice,
                                     const GradientCheckOptions& options) {
  const ModelRow& row = config.chosen.row();
  if (row.check_differentiable) row.check_differentiable(config.chosen.options);
  const auto model = row.make(limited(config.chosen, "MAX_ITEM_LIST_LENGTH", kLongest).options, kItems,
                              options.key.fold_in("weights"));
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
  TrainingShard shard{cut_to_window(Sequences::from(walks, kItems), model->window()), {}};
  if (model->events_before() > 0) {
    Sequences before = Sequences::from({{7, 0, 7}, {}, {}, {11}}, kItems);
    shard.inputs.before = {std::move(before.items), std::move(before.offsets)};
  }
  shard.inputs.users = Tensor::from<std::int32_t>({0, 1, 2, 3}, {4});
  shard.targets = Tensor({shard.inputs.items.numel()}, DType::i32);
  const std::int64_t targets = shard.targets.numel();
  for (std::int64_t i = 0; i < targets; ++i) {
    shard.targets.mutable_data<std::int32_t>()[i] = static_cast<std::int32_t>((5 * i + 7) % kItems);
  }
  const Choice<LossRow> of_few = limited(loss_choice, "negatives", kNegatives);
  const auto loss = of_few.row().make(of_few.options, {{walks.begin(), walks.end()}, kItems});
  const Tensor negatives = loss->draw_negatives(shard, options.key.fold_in("negatives"));
  const BatchItems items = BatchItems::all(kItems);
  std::vector<CheckedLeaf> leaves;
  for (const auto& [path, parameter] : model->parameters())
    leaves.push_back({path, parameter->value(), parameter->id()});
  const nn::Context context{true, options.key.fold_in("dropout")};
  return check_gradients(
      [&]() -> std::vector<Var> {
        const Prepared prepared = model->prepare(items);
        const Var hidden = model->encode(shard.inputs, prepared, context);
        const Var total = (*loss)(
            {hidden, model->candidate_table(prepared), shard, negatives, items, 1 / static_cast<double>(targets)});
        const Var auxiliary = model->auxiliary_loss(shard.inputs, shard.targets, prepared, context);
        return {auxiliary.defined() ? total + auxiliary : total};
      },
      leaves, options);
}

GradientReport check_model_gradients(const ModelConfig& model, const GradientCheckOptions& options) {
  return check_model_gradients(model, Choice<LossRow>(standard().losses, "CE"), options);
}

}  // namespace tally::recsys
