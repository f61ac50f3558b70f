#include "tally/recsys/models/lisa_serving.h"

#include <algorithm>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/decode_codes.h"
#include "tally/ops/elementwise.h"
#include "tally/ops/shape.h"

namespace tally::recsys {
namespace {

/// A quantizer without what training alone needs.
nn::VectorQuantizer trimmed(const nn::VectorQuantizer& quantizer) {
  nn::VectorQuantizer result;
  result.options.quantization = quantizer.options.quantization;
  result.codebooks = nn::Parameter(quantizer.codewords().value().clone());
  result.bilinear = quantizer.bilinear;
  result.bias = quantizer.bias;
  return result;
}

LisaServingBlock trimmed(const LisaBlock& block, const nn::VectorQuantizer& quantizer, const Var& attended_positions) {
  const nn::HistogramTables tables = block.attention.tables(quantizer.codewords());
  LisaServingBlock result{.block = block,
                          .inner = nn::Buffer(tables.inner.value().clone()),
                          .values = nn::Buffer(tables.values.value().clone()),
                          .attended_positions = {}};
  if (attended_positions.defined()) result.attended_positions = nn::Buffer(attended_positions.value().clone());
  result.block.position_attention.reset();
  if (block.quantizer) result.block.quantizer = trimmed(*block.quantizer);
  nn::HistogramSelfAttention& attention = result.block.attention;
  attention.decay = attention.current_decay();
  attention.query = attention.key = attention.value = attention.log_decay = nn::Parameter();
  return result;
}

std::int64_t bytes_of(const nn::Buffer& buffer) {
  return buffer.defined() ? static_cast<std::int64_t>(buffer.value().bytes()) : 0;
}

ItemScorer scorer_of(const LisaServingWeights& weights) {
  const bool own = weights.target_codes.defined();
  Tensor codebooks = (own ? weights.target_codebooks : weights.codebooks).value();
  if (weights.score_scale != 1) codebooks = (Var(codebooks) * weights.score_scale).value();
  return ItemScorer::of_codes((own ? weights.target_codes : weights.codes).value(), codebooks);
}

}  // namespace

LisaServing::LisaServing(LisaServingWeights weights)
    : weights_(std::make_shared<const LisaServingWeights>(std::move(weights))), scorer_(scorer_of(*weights_)) {
  for (const LisaServingBlock& block : weights_->blocks) {
    quantizer_tables_.push_back(block.block.quantizer ? block.block.quantizer->tables()
                                                      : ops::VectorQuantizationTables());
  }
}

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
  const Tensor embedded =
      model.items(BatchItems::all(model.num_items()).ids(), std::sqrt(static_cast<double>(model.width()))).value();
  LisaServingWeights weights;
  weights.codes = nn::Buffer(model.quantizer.encode(embedded));
  weights.codebooks = nn::Buffer(model.quantizer.codewords().value().clone());
  if (model.target_quantizer) {
    weights.target_codes = nn::Buffer(model.target_quantizer->encode(embedded));
    weights.target_codebooks = nn::Buffer(model.target_quantizer->codewords().value().clone());
  }
  weights.positions = model.positions;
  weights.alignment = model.alignment;
  weights.score_scale = model.score_scale;
  const std::vector<Var> attended_positions = model.attend_positions();
  for (std::size_t b = 0; b < model.blocks.size(); ++b) {
    const LisaBlock& block = model.blocks[b];
    weights.blocks.push_back(
        trimmed(block, block.quantizer ? *block.quantizer : model.quantizer, attended_positions[b]));
  }
  return LisaServing(std::move(weights));
}

Tensor LisaServing::encode(const Sequences& batch) const {
  const Paused paused;
  ops::VectorQuantization quantized{
      .reconstruction = {}, .logits = {}, .codes = ops::gather(Var(codes()), batch.items).value()};
  const Tensor places = recsys::positions(batch.offsets, window(), weights_->alignment);
  const Var position = weights_->positions(places);
  Var x = ops::decode_codes(weights_->codebooks.value(), quantized.codes) + position;
  for (std::size_t b = 0; b < weights_->blocks.size(); ++b) {
    const LisaServingBlock& one = weights_->blocks[b];
    if (one.block.quantizer) {
      quantized.codes = ops::encode_codes(x.value(), quantizer_tables_[b], one.block.quantizer->options.quantization);
    }
    const Var attended_positions =
        one.attended_positions.defined() ? ops::gather(Var(one.attended_positions.value()), places) : Var();
    x = one.block(x, quantized, {one.inner.value(), one.values.value()}, attended_positions, batch.offsets, {});
  }
  return x.value();
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
  LisaServingSize size{.codes = bytes_of(weights_->codes) + bytes_of(weights_->target_codes),
                       .codebooks = bytes_of(weights_->codebooks) + bytes_of(weights_->target_codebooks),
                       .positions = static_cast<std::int64_t>(weights_->positions.table.value().bytes()),
                       .embedding_table = 4 * num_items() * width()};
  for (const LisaServingBlock& block : weights_->blocks) {
    size.tables += bytes_of(block.inner) + bytes_of(block.values);
    size.positions += bytes_of(block.attended_positions);
    nn::walk("", block.block, [&](const std::string&, const auto& field) {
      size.layers += static_cast<std::int64_t>(field.value().bytes());
    });
  }
  return size;
}

}  // namespace tally::recsys
