#include "tally/recsys/models/lisa.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/elementwise.h"
#include "tally/ops/embedding.h"
#include "tally/ops/reduce.h"
#include "tally/ops/residual_dropout_norm.h"
#include "tally/ops/shape.h"

namespace tally::recsys {
namespace {

/// Places of Lisa::prepare()'s values; those of the blocks follow, kValuesOfBlock for each.
enum PreparedValue : std::size_t { kEmbedded, kReconstruction, kLogits, kCodes, kTargets, kBlocks };
/// Of a block: the tables of its attention, those of its quantizer, and what attention to positions gave.
enum BlockValue : std::size_t {
  kInner,
  kValues,
  kProjected,
  kWordProducts,
  kWordBias,
  kFirstEqual,
  kAttendedPositions,
  kValuesOfBlock
};

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

/// Where nothing is recorded, hard codes are had, and read, without the logits of all items.
ops::VectorQuantization quantize(const nn::VectorQuantizer& quantizer, const Var& embedded) {
  if (Tape::current() != nullptr || quantizer.options.quantization.assignment == ops::CodewordAssignment::soft) {
    return quantizer(embedded);
  }
  ops::VectorQuantization quantized;
  quantized.codes = quantizer.encode(embedded.value());
  quantized.reconstruction = quantizer.decode(quantized.codes);
  return quantized;
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
  const ops::VectorQuantization quantized = quantize(quantizer, embedded);
  const Tensor& codes = quantized.codes;
  const Tensor counts = nn::code_counts(codes, quantizer.options.codewords);
  const std::vector<double> perplexity = nn::perplexity(counts);
  const auto numbers = counts.span<std::int64_t>();
  const auto used = std::count_if(numbers.begin(), numbers.end(), [](std::int64_t count) { return count > 0; });
  const double error = sum_of_squares(embedded - quantized.reconstruction);
  to.push_back({prefix + "codewords_used", static_cast<double>(used) / static_cast<double>(numbers.size())});
  to.push_back({prefix + "codeword_perplexity",
                std::accumulate(perplexity.begin(), perplexity.end(), 0.0) / static_cast<double>(perplexity.size())});
  to.push_back({prefix + "quantization_error", error / sum_of_squares(embedded)});
}

}  // namespace

Var LisaBlock::operator()(const Var& x, const ops::VectorQuantization& quantized, const nn::HistogramTables& tables,
                          const Var& attended_positions, const Offsets& offsets, const nn::Context& context) const {
  Var attended = attention(quantized.codes, quantized.logits, tables, offsets);
  if (attended_positions.defined()) attended = attended + attended_positions;
  return after_attention(attended, x, context);
}

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
  model.weights_given(key);
  for (std::int64_t b = 0; b < options.layers; ++b) {
    model.blocks.push_back(make_block(options, b == 0, key.fold_in("blocks").fold_in(static_cast<std::uint64_t>(b))));
  }
  return model;
}

void Lisa::weights_given(RngKey key) {
  if (!kmeans) return;
  Tensor embedded = items.table.value().clone();
  const auto scale = static_cast<float>(std::sqrt(static_cast<double>(width())));
  for (float& value : embedded.mutable_span<float>()) value *= scale;
  quantizer.initialize(embedded, key.fold_in("kmeans"));
  if (target_quantizer) target_quantizer->initialize(embedded, key.fold_in("target_kmeans"));
}

std::vector<Var> Lisa::attend_positions() const {
  std::vector<Var> attended(blocks.size());
  if (!position_quantizer) return attended;
  const Offsets all = Offsets::single(window);
  const ops::VectorQuantization quantized = (*position_quantizer)(positions.table);
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const nn::HistogramSelfAttention& attention = *blocks[b].position_attention;
    const nn::HistogramTables tables = attention.tables(position_quantizer->codewords());
    attended[b] = attention(quantized.codes, quantized.logits, tables, all);
  }
  return attended;
}

std::vector<Var> Lisa::prepare(const BatchItems& batch_items) const {
  const double scale = std::sqrt(static_cast<double>(width()));
  const Var embedded = items(batch_items.ids(), scale);
  const Var absent(Tensor::zeros({0}, embedded.dtype()));
  const ops::VectorQuantization quantized = quantize(quantizer, embedded);
  Var targets = full_targets ? embedded : quantized.reconstruction;
  if (full_targets && batch_items.all_candidates() && !batch_items.is_all()) {
    targets = items(BatchItems::all(num_items()).ids(), scale);
  }
  if (target_quantizer) targets = quantize(*target_quantizer, embedded).reconstruction;
  if (score_scale != 1) targets = targets * score_scale;
  Var logits = absent;
  if (quantized.logits.defined()) {
    const Shape& shape = quantized.logits.shape();
    logits = ops::reshape(quantized.logits, Shape{shape[0], shape[1] * shape[2]});
  }
  std::vector<Var> values{embedded, quantized.reconstruction, logits, Var(quantized.codes), targets};
  const std::vector<Var> attended_positions = attend_positions();
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const LisaBlock& block = blocks[b];
    const nn::VectorQuantizer& of_block = block.quantizer ? *block.quantizer : quantizer;
    const nn::HistogramTables tables = block.attention.tables(of_block.codebooks);
    // The first block has the items' codes and quantizes nothing.
    const ops::VectorQuantizationTables own = block.quantizer ? of_block.tables() : ops::VectorQuantizationTables();
    std::vector<Var> of_this(kValuesOfBlock, absent);
    const auto put = [&](BlockValue place, const Var& value) {
      if (value.defined()) of_this[place] = value;
    };
    put(kInner, tables.inner);
    put(kValues, tables.values);
    put(kProjected, own.projected);
    put(kWordProducts, own.inner);
    put(kWordBias, own.bias);
    if (own.first_equal.defined()) put(kFirstEqual, Var(own.first_equal));
    put(kAttendedPositions, attended_positions[b]);
    values.insert(values.end(), of_this.begin(), of_this.end());
  }
  return values;
}

Var Lisa::encode(const Sequences& batch, const Prepared& prepared, const nn::Context& context) const {
  const std::vector<Var>& values = prepared.values;
  const Tensor rows = prepared.items.rows(batch.items);
  const Var vectors = rows_of(values[full_stream ? kEmbedded : kReconstruction], rows);
  const Tensor places = recsys::positions(batch.offsets, window, alignment);
  const Var position = positions(places);
  ops::VectorQuantization quantized{
      .reconstruction = {}, .logits = {}, .codes = ops::gather(values[kCodes], rows).value()};
  if (variant == LisaVariant::soft || recording(values[kLogits])) {
    const std::int64_t codebooks = values[kCodes].dim(1), codewords = values[kLogits].dim(1) / codebooks;
    quantized.logits = ops::reshape(rows_of(values[kLogits], rows), Shape{rows.numel(), codebooks, codewords});
  }
  Var x = dropout(vectors + position, context.at("embedding"));
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const Var* own = values.data() + kBlocks + b * kValuesOfBlock;
    if (blocks[b].quantizer) {
      quantized = (*blocks[b].quantizer)(
          x, {.codebooks = blocks[b].quantizer->codebooks,
              .projected = own[kProjected],
              .inner = own[kWordProducts],
              .bias = own[kWordBias],
              .first_equal = own[kFirstEqual].numel() > 0 ? own[kFirstEqual].value() : Tensor()});
    }
    const Var attended_positions = position_quantizer ? rows_of(own[kAttendedPositions], places) : Var();
    x = blocks[b](x, quantized, {own[kInner], own[kValues]}, attended_positions, batch.offsets,
                  context.at("blocks").at(b));
  }
  return x;
}

Var Lisa::candidate_table(const Prepared& prepared) const { return prepared.values[kTargets]; }

LisaItems Lisa::quantized_items() const {
  const std::vector<Var> values = prepare(BatchItems::all(num_items()));
  return {.codes = values[kCodes].value(),
          .reconstruction = values[kReconstruction].value(),
          .candidates = values[kTargets].value()};
}

Var Lisa::auxiliary_loss(const Sequences& batch, const Tensor& targets, const Prepared& prepared,
                         const nn::Context&) const {
  if (commitment == 0) return {};
  const auto distance = [&](const Tensor& of_items, const Var& reconstruction) {
    const Tensor rows = prepared.items.rows(of_items);
    return ops::sum(ops::square(rows_of(prepared.values[kEmbedded], rows) - rows_of(reconstruction, rows)));
  };
  Var loss = distance(batch.items, prepared.values[kReconstruction].detach());
  if (target_quantizer) {
    // Target vectors are reconstructions times score_scale.
    loss = loss + distance(without_ignored(targets), prepared.values[kTargets].detach() * (1 / score_scale));
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
