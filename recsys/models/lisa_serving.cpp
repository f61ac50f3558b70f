#include "tally/recsys/models/lisa_serving.h"

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/elementwise/elementwise.h"

namespace tally::recsys {
namespace {

std::int64_t bytes_of(const Tensor& tensor) { return tensor.defined() ? static_cast<std::int64_t>(tensor.bytes()) : 0; }
std::int64_t bytes_of(const std::optional<Var>& var) { return var ? bytes_of(var->value()) : 0; }

ItemScorer scorer_of(const Lisa& model, const LisaPrepared& prepared) {
  const bool separate = prepared.target_codebooks.has_value();
  Var codebooks = separate ? *prepared.target_codebooks : *prepared.codebooks;
  if (model.score_scale != 1) codebooks = codebooks * model.score_scale;
  return ItemScorer::of_codes(separate ? prepared.target_codes : prepared.codes, codebooks.value());
}

}  // namespace

LisaServing::LisaServing(Served served)
    : served_(std::make_shared<const Served>(std::move(served))), scorer_(scorer_of(model(), prepared())) {}

LisaServing LisaServing::from(const Lisa& model) {
  check<ValueError>(
      !model.full_targets, "LisaServing",
      "needs targets that are sums of codewords (base or mini, quantized: all); this model scores the full "
      "embeddings");
  nn::walk("", model, [](const std::string& path, const auto& field) {
    const DType dtype = field.value().dtype();
    check<DTypeError>(!is_floating(dtype) || dtype == DType::f32, "LisaServing", "needs f32; ", path, " is ", dtype);
  });
  const Paused paused;
  LisaPrepared prepared = model.prepare(BatchItems::all(model.num_items()));
  prepared.embedded.reset();
  // The model may go on training; what was prepared shares some tensors with its parameters.
  walk_vars(prepared, [](Var& var) { var = Var(var.value().clone()); });
  return LisaServing({model.without_tables(), std::move(prepared)});
}

Tensor LisaServing::encode(const Sequences& batch) const {
  const Paused paused;
  return model().encode(batch, prepared(), {}).value();
}

Tensor LisaServing::user_vectors(const Sequences& all) const {
  const Sequences histories = cut_to_window(all, window());
  Tensor vectors = Tensor::zeros({histories.count(), width()});
  float* const rows = vectors.mutable_data<float>();
  parallel_for(histories.count(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (histories.offsets.length(i) == 0) continue;
      const std::span<const std::int32_t> history = histories.sequence(i);
      const Tensor hidden = encode(pack_window(std::span(&history, 1)));
      std::copy_n(hidden.data<float>() + (hidden.dim(0) - 1) * width(), width(), rows + i * width());
    }
  });
  return vectors;
}

Tensor LisaServing::score(const Sequences& histories) const {
  const Tensor vectors = user_vectors(histories);
  Tensor scores({histories.count(), num_items()});
  float* const out = scores.mutable_data<float>();
  parallel_for(histories.count(), 1, [&](std::int64_t begin, std::int64_t end) {
    const auto part = [&](auto* from, std::int64_t columns) {
      return std::span(from + begin * columns, static_cast<std::size_t>((end - begin) * columns));
    };
    scorer_.score(part(vectors.data<float>(), width()), part(out, num_items()));
  });
  return scores;
}

LisaServingSize LisaServing::size() const {
  const LisaPrepared& items = prepared();
  LisaServingSize size{.codes = bytes_of(items.codes) + bytes_of(items.target_codes),
                       .codebooks = bytes_of(items.codebooks) + bytes_of(items.target_codebooks),
                       .positions = bytes_of(model().positions.table.value()),
                       .embedding_table = 4 * num_items() * width()};
  for (const LisaPreparedBlock& block : items.blocks) {
    size.tables += bytes_of(block.tables.inner) + bytes_of(block.tables.values);
    size.positions += bytes_of(block.attended_positions);
  }
  nn::walk("", model().blocks, [&](const std::string&, const auto& field) { size.layers += bytes_of(field.value()); });
  return size;
}

}  // namespace tally::recsys
