#include "tally/recsys/models/lisa.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/norms/residual_dropout_norm.h"
#include "tally/ops/quantization/decode_codes.h"
#include "tally/ops/tensor/embedding.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/ops/tensor/shape.h"

namespace tally::recsys {
namespace {

nn::VectorQuantizer make_quantizer(const LisaOptions& options, std::int64_t codebooks, std::int64_t codewords,
                                   bool soft, RngKey key) {
  return nn::VectorQuantizer::make(
      {.codebooks = codebooks,
       .codewords = codewords,
       .width = options.width,
       .quantization = {.similarity = options.similarity,
                        .temperature = options.temperature,
                        .assignment = soft ? ops::CodewordAssignment::soft : ops::CodewordAssignment::hard,
                        .residual = options.residual},
       .codeword_bias = options.codeword_bias},
      key);
}

LisaBlock make_block(const LisaOptions& options, bool first, RngKey key) {
  const bool soft = options.variant == LisaVariant::soft;
  LisaBlock block{.quantizer = std::nullopt,
                  .attention = nn::HistogramSelfAttention::make(
                      {.codebooks = options.codebooks,
                       .width = options.width,
                       .assignment = soft ? ops::CodewordAssignment::soft : ops::CodewordAssignment::hard,
                       .window = options.attention_window,
                       .decay = options.decay,
                       .learn_decay = options.learn_decay,
                       .soft_query = options.soft_query},
                      key.fold_in("attention")),
                  .position_attention = std::nullopt,
                  .attention_norm = nn::LayerNorm::make({options.width, options.epsilon}),
                  .feed_forward_norm = nn::LayerNorm::make({options.width, options.epsilon}),
                  .feed_forward = nn::FeedForward::make({.width = options.width,
                                                         .inner = options.inner == 0 ? options.width : options.inner,
                                                         .activation = options.activation,
                                                         .dropout = options.dropout},
                                                        key.fold_in("feed_forward")),
                  .dropout = {options.dropout}};
  if (!first) {
    block.quantizer = make_quantizer(options, options.codebooks, options.codewords, soft, key.fold_in("quantizer"));
  }
  if (options.position_codebooks > 0) {
    block.position_attention = nn::HistogramSelfAttention::make(
        {.codebooks = options.position_codebooks, .width = options.width, .assignment = ops::CodewordAssignment::soft},
        key.fold_in("position_attention"));
  }
  return block;
}

/// Rows of prepared values [items, ...] for tokens. Their gradient touches few rows of many.
Var rows_of(const Var& table, const Tensor& rows) { return ops::embedding(table, rows); }

/// Where nothing is recorded, hard codes say all: logits are not needed, and a reconstruction is a sum of codewords.
bool codes_suffice(const nn::VectorQuantizer& quantizer) {
  return Tape::current() == nullptr && quantizer.options.quantization.assignment == ops::CodewordAssignment::hard;
}

/// What is left of a quantization when codes suffice.
ops::VectorQuantization of_codes(Tensor codes) {
  ops::VectorQuantization quantized;
  quantized.codes = std::move(codes);
  return quantized;
}

/// Rows quantized with tables that were made before.
ops::VectorQuantization quantize(const nn::VectorQuantizer& quantizer, const Var& x,
                                 ops::VectorQuantizationTables tables) {
  tables.codebooks = quantizer.codewords();
  if (codes_suffice(quantizer)) {
    return of_codes(ops::encode_codes(x.value(), tables, quantizer.options.quantization));
  }
  return quantizer(x, tables);
}

/// Targets of the rows that have one.
Tensor without_ignored(const Tensor& targets) {
  std::vector<std::int32_t> items;
  for (const std::int32_t item : targets.span<std::int32_t>()) {
    if (item >= 0) items.push_back(item);
  }
  return Tensor::from(items, {static_cast<std::int64_t>(items.size())});
}

double sum_of_squares(const Var& x) { return ops::sum(ops::square(x)).item(); }

void add_measures(const std::string& prefix, const nn::VectorQuantizer& quantizer, const Var& embedded,
                  std::vector<Measure>& to) {
  const bool hard = codes_suffice(quantizer);
  const ops::VectorQuantization quantized = hard ? of_codes(quantizer.encode(embedded.value())) : quantizer(embedded);
  const Var reconstruction = hard ? quantizer.decode(quantized.codes) : quantized.reconstruction;
  const Tensor& codes = quantized.codes;
  const Tensor counts = nn::code_counts(codes, quantizer.options.codewords);
  const std::vector<double> perplexity = nn::perplexity(counts);
  const auto numbers = counts.span<std::int64_t>();
  const auto used = std::count_if(numbers.begin(), numbers.end(), [](std::int64_t count) { return count > 0; });
  const double error = sum_of_squares(embedded - reconstruction);
  to.push_back({prefix + "codewords_used", static_cast<double>(used) / static_cast<double>(numbers.size())});
  to.push_back({prefix + "codeword_perplexity",
                std::accumulate(perplexity.begin(), perplexity.end(), 0.0) / static_cast<double>(perplexity.size())});
  to.push_back({prefix + "quantization_error", error / sum_of_squares(embedded)});
}

}  // namespace

Var LisaBlock::after_attention(const Var& attended, const Var& x, const nn::Context& context) const {
  const Var y = ops::residual_dropout_norm(
                    attended, x, attention_norm.weight, attention_norm.bias,
                    {.epsilon = attention_norm.epsilon, .dropout = dropout.options(context.at("attention_dropout"))})
                    .normalized;
  const Var z = feed_forward(y, context.at("feed_forward"));
  return ops::residual_dropout_norm(
             z, y, feed_forward_norm.weight, feed_forward_norm.bias,
             {.epsilon = feed_forward_norm.epsilon, .dropout = dropout.options(context.at("feed_forward_dropout"))})
      .normalized;
}

Var LisaPrepared::reconstructions() const {
  return reconstruction ? *reconstruction : ops::decode_codes(*codebooks, codes);
}

Lisa Lisa::make(const LisaOptions& options, RngKey key) {
  check<ValueError>(options.layers >= 1, "Lisa", "needs at least one layer; got ", options.layers);
  check<ValueError>(options.quantized == LisaQuantized::all || options.variant != LisaVariant::mini, "Lisa",
                    "quantizes the targets of mini by a quantizer of their own; they cannot be the full embeddings");
  check<ValueError>(options.score_scale > 0 && std::isfinite(options.score_scale), "Lisa",
                    "needs a scale of scores above 0; got ", options.score_scale);
  check<ValueError>(options.position_codebooks >= 0, "Lisa", "needs a number of position codebooks of at least 0; got ",
                    options.position_codebooks);
  check<ValueError>(options.position_codebooks == 0 || options.alignment == PositionAlignment::start, "Lisa",
                    "attends to positions that count from the window's start; from its end, what a position attends to "
                    "depends on the sequence's length");
  const std::int64_t d = options.width;
  const auto xavier_normal = [](std::int64_t rows, std::int64_t columns) {
    return std::sqrt(2.0 / static_cast<double>(rows + columns));
  };
  Lisa model{
      .items = nn::Embedding::make({options.items, d, xavier_normal(options.items, d)}, key.fold_in("items")),
      .positions = nn::Embedding::make({options.window, d, xavier_normal(options.window, d)}, key.fold_in("positions")),
      .quantizer = make_quantizer(options, options.codebooks, options.codewords, options.variant == LisaVariant::soft,
                                  key.fold_in("quantizer")),
      .target_quantizer = std::nullopt,
      .position_quantizer = std::nullopt,
      .dropout = {options.dropout},
      .blocks = {},
      .variant = options.variant,
      .full_targets = options.quantized != LisaQuantized::all || options.variant == LisaVariant::soft,
      .full_stream = options.quantized == LisaQuantized::attention,
      .kmeans = options.kmeans,
      .score_scale = options.score_scale,
      .commitment = options.commitment,
      .window = options.window,
      .alignment = options.alignment,
  };
  if (options.variant == LisaVariant::mini) {
    model.target_quantizer =
        make_quantizer(options, options.codebooks, options.target_codewords, false, key.fold_in("target_quantizer"));
  }
  if (options.position_codebooks > 0) {
    model.position_quantizer = make_quantizer(options, options.position_codebooks, options.position_codewords, true,
                                              key.fold_in("position_quantizer"));
  }
  model.initialize_from_weights(key);
  for (std::int64_t b = 0; b < options.layers; ++b) {
    model.blocks.push_back(make_block(options, b == 0, key.fold_in("blocks").fold_in(static_cast<std::uint64_t>(b))));
  }
  return model;
}

void Lisa::initialize_from_weights(RngKey key) {
  if (!kmeans) return;
  Tensor embedded = items.table.value().clone();
  const auto scale = static_cast<float>(std::sqrt(static_cast<double>(width())));
  for (float& value : embedded.mutable_span<float>()) value *= scale;
  quantizer.initialize(embedded, key.fold_in("kmeans"));
  if (target_quantizer) target_quantizer->initialize(embedded, key.fold_in("target_kmeans"));
}

LisaPrepared Lisa::prepare(const BatchItems& batch_items) const {
  const double scale = std::sqrt(static_cast<double>(width()));
  const Var embedded = items(batch_items.ids(), scale);
  LisaPrepared prepared;
  prepared.items = batch_items;
  prepared.embedded = embedded;
  if (codes_suffice(quantizer)) {
    prepared.codes = quantizer.encode(embedded.value());
    prepared.codebooks = quantizer.codewords();
  } else {
    const ops::VectorQuantization quantized = quantizer(embedded);
    prepared.codes = quantized.codes;
    prepared.reconstruction = quantized.reconstruction;
    const Shape& shape = quantized.logits.shape();
    prepared.logits = ops::reshape(quantized.logits, Shape{shape[0], shape[1] * shape[2]});
  }
  if (full_targets) {
    const bool of_all = batch_items.all_candidates() && !batch_items.is_all();
    prepared.targets = of_all ? items(BatchItems::all(num_items()).ids(), scale) : embedded;
  } else if (target_quantizer && codes_suffice(*target_quantizer)) {
    prepared.target_codes = target_quantizer->encode(embedded.value());
    prepared.target_codebooks = target_quantizer->codewords();
  } else if (target_quantizer) {
    prepared.targets = (*target_quantizer)(embedded).reconstruction;
  } else if (prepared.reconstruction) {
    prepared.targets = prepared.reconstruction;
  }
  if (prepared.targets && score_scale != 1) prepared.targets = *prepared.targets * score_scale;
  std::optional<ops::VectorQuantization> quantized_positions;
  if (position_quantizer) quantized_positions = (*position_quantizer)(positions.table);
  for (const LisaBlock& block : blocks) {
    LisaPreparedBlock& to = prepared.blocks.emplace_back();
    to.tables = block.attention.tables((block.quantizer ? *block.quantizer : quantizer).codewords());
    if (block.quantizer) {
      to.quantizer = block.quantizer->tables();
      to.quantizer->codebooks = Var();
    }
    if (block.position_attention) {
      to.attended_positions = (*block.position_attention)(
          quantized_positions->codes, quantized_positions->logits,
          block.position_attention->tables(position_quantizer->codewords()), Offsets::single(window));
    }
  }
  return prepared;
}

ops::VectorQuantization Lisa::quantized(const Tensor& rows, const LisaPrepared& prepared) const {
  ops::VectorQuantization quantized = of_codes(ops::gather(Var(prepared.codes), rows).value());
  if (prepared.logits && (variant == LisaVariant::soft || recording(*prepared.logits))) {
    const std::int64_t codebooks = prepared.codes.dim(1), codewords = prepared.logits->dim(1) / codebooks;
    quantized.logits = ops::reshape(rows_of(*prepared.logits, rows), Shape{rows.numel(), codebooks, codewords});
  }
  return quantized;
}

Var Lisa::forward(const Tensor& row_items, const Tensor& places, const LisaPrepared& prepared,
                  const nn::Context& context, const Attend& attend) const {
  const Tensor rows = prepared.items.rows(row_items);
  ops::VectorQuantization quantized = this->quantized(rows, prepared);
  const Var vectors = full_stream               ? rows_of(*prepared.embedded, rows)
                      : prepared.reconstruction ? rows_of(*prepared.reconstruction, rows)
                                                : ops::decode_codes(*prepared.codebooks, quantized.codes);
  Var x = dropout(vectors + positions(places), context.at("embedding"));
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const LisaPreparedBlock& of_block = prepared.blocks[b];
    if (blocks[b].quantizer) quantized = quantize(*blocks[b].quantizer, x, *of_block.quantizer);
    Var attended = attend(b, quantized);
    if (of_block.attended_positions) attended = attended + rows_of(*of_block.attended_positions, places);
    x = blocks[b].after_attention(attended, x, context.at("blocks").at(b));
  }
  return x;
}

Var Lisa::encode(const Sequences& batch, const LisaPrepared& prepared, const nn::Context& context) const {
  const Tensor places = recsys::positions(batch.offsets, window, alignment);
  return forward(batch.items, places, prepared, context, [&](std::size_t b, const ops::VectorQuantization& rows) {
    return blocks[b].attention(rows.codes, rows.logits, prepared.blocks[b].tables, batch.offsets);
  });
}

Lisa Lisa::without_tables() const {
  Lisa kept;
  kept.positions = positions;
  kept.variant = variant;
  kept.full_targets = full_targets;
  kept.full_stream = full_stream;
  kept.score_scale = score_scale;
  kept.window = window;
  kept.alignment = alignment;
  for (const LisaBlock& block : blocks) {
    LisaBlock& to = kept.blocks.emplace_back();
    if (block.quantizer) {
      to.quantizer.emplace();
      to.quantizer->options.quantization = block.quantizer->options.quantization;
      to.quantizer->codebooks = nn::Parameter(block.quantizer->codewords().value().clone());
      to.quantizer->bilinear = block.quantizer->bilinear;
      to.quantizer->bias = block.quantizer->bias;
    }
    to.attention.mask = block.attention.mask;
    to.attention.assignment = block.attention.assignment;
    to.attention.window = block.attention.window;
    to.attention.decay = block.attention.current_decay();
    to.attention.soft_query = block.attention.soft_query;
    to.attention_norm = block.attention_norm;
    to.feed_forward_norm = block.feed_forward_norm;
    to.feed_forward = block.feed_forward;
    to.dropout = block.dropout;
  }
  return kept;
}

Var Lisa::candidate_table(const LisaPrepared& prepared) const {
  if (prepared.targets) return *prepared.targets;
  const Var table = prepared.target_codebooks ? ops::decode_codes(*prepared.target_codebooks, prepared.target_codes)
                                              : prepared.reconstructions();
  return score_scale == 1 ? table : table * score_scale;
}

Var Lisa::auxiliary_loss(const Sequences& batch, const Tensor& targets, const LisaPrepared& prepared,
                         const nn::Context&) const {
  if (commitment == 0) return {};
  const auto distance = [&](const Tensor& of_items, const Var& reconstruction) {
    const Tensor rows = prepared.items.rows(of_items);
    return ops::sum(ops::square(rows_of(*prepared.embedded, rows) - rows_of(reconstruction, rows)));
  };
  Var loss = distance(batch.items, prepared.reconstructions().detach());
  if (target_quantizer) {
    // Target vectors are reconstructions times score_scale.
    loss = loss + distance(without_ignored(targets), candidate_table(prepared).detach() * (1 / score_scale));
  }
  return loss * commitment;
}

std::vector<Measure> Lisa::measures() const {
  const Paused paused;
  const Var embedded(items(BatchItems::all(num_items()).ids(), std::sqrt(static_cast<double>(width()))).value());
  std::vector<Measure> measures;
  add_measures("", quantizer, embedded, measures);
  if (target_quantizer) add_measures("target_", *target_quantizer, embedded, measures);
  return measures;
}

}  // namespace tally::recsys
