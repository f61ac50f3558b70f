#include "tally/nn/attention/attention_kinds.h"

#include <algorithm>
#include <cmath>

#include "tally/core/io/json_fields.h"
#include "tally/nn/attention/histogram.h"
#include "tally/nn/attention/linear.h"
#include "tally/nn/attention/linformer.h"
#include "tally/nn/attention/lsh.h"
#include "tally/nn/attention/multi_head.h"
#include "tally/nn/attention/sinkhorn.h"
#include "tally/nn/attention/softmax.h"
#include "tally/nn/initializers.h"

namespace tally::nn {
namespace {

std::int64_t head_width(const AttentionSettings& settings) { return settings.width / settings.heads; }

void check_max_length(const AttentionSettings& settings) {
  check<ValueError>(settings.max_length >= 1, "attention", "needs to know the longest sequence; got ",
                    settings.max_length);
}

SoftmaxCore softmax_core(const AttentionSettings& settings, std::int64_t window, bool materialized) {
  return {.heads = settings.heads,
          .mask = settings.mask,
          .window = window,
          .dropout = settings.dropout,
          .width = settings.width,
          .materialized = materialized};
}
SoftmaxCore softmax(const AttentionSettings& settings, RngKey) {
  return softmax_core(settings, settings.window, false);
}
SoftmaxCore materialized(const AttentionSettings& settings, RngKey) {
  return softmax_core(settings, settings.window, true);
}
SoftmaxCore local(const AttentionSettings& settings, RngKey) { return softmax_core(settings, settings.block, false); }

LinearAttentionCore linear_elu(const AttentionSettings& settings, RngKey) {
  return {.width = settings.width, .heads = settings.heads, .mask = settings.mask, .directions = {}};
}

LinearAttentionCore linear_favor(const AttentionSettings& settings, RngKey key) {
  LinearAttentionCore core = linear_elu(settings, key);
  core.directions = Buffer(orthogonal_directions(settings.random_features, head_width(settings), key));
  return core;
}

LshCore lsh(const AttentionSettings& settings, RngKey key) {
  check<ValueError>(settings.buckets >= 2 && settings.buckets % 2 == 0 && settings.rounds >= 1, "lsh attention",
                    "needs an even number of buckets and at least one round; got ", settings.buckets, " and ",
                    settings.rounds);
  return {.heads = settings.heads,
          .mask = settings.mask,
          .chunk = settings.block,
          .directions = Buffer(normal({settings.rounds, settings.buckets / 2, head_width(settings)}, 1, key))};
}

SinkhornCore sinkhorn(const AttentionSettings& settings, RngKey key) {
  check_max_length(settings);
  const std::int64_t blocks = (settings.max_length + settings.block - 1) / settings.block;
  return {.heads = settings.heads,
          .mask = settings.mask,
          .block = settings.block,
          .sorter = Linear::make({.in = settings.width, .out = blocks}, key)};
}

LinformerCore linformer(const AttentionSettings& settings, RngKey key) {
  check_max_length(settings);
  const Shape shape{settings.projected_keys, settings.max_length};
  const double deviation = std::sqrt(1.0 / static_cast<double>(settings.projected_keys));
  return {.heads = settings.heads,
          .key_projection = Parameter(normal(shape, deviation, key.fold_in("keys"))),
          .value_projection = Parameter(normal(shape, deviation, key.fold_in("values")))};
}

/// A core between projections, as a row of the table makes it.
template <class Core>
auto with_projections(Core (*core)(const AttentionSettings&, RngKey)) {
  return [core](const AttentionKindEntry& entry, const AttentionSettings& settings, RngKey key) {
    return Attention(entry.name, MultiHead<Core>::make(core(settings, key.fold_in("attention")), settings.width,
                                                       settings.deviation, key));
  };
}

Attention histogram(const AttentionKindEntry& entry, const AttentionSettings& settings, RngKey key) {
  return Attention(
      entry.name,
      HistogramKind{.quantizer = VectorQuantizer::make(
                        {.codebooks = settings.codebooks, .codewords = settings.codewords, .width = settings.width},
                        key.fold_in("quantizer")),
                    .histogram = HistogramSelfAttention::make({.codebooks = settings.codebooks,
                                                               .width = settings.width,
                                                               .mask = settings.mask,
                                                               .decay = settings.decay},
                                                              key.fold_in("histogram"))});
}

AttentionKinds standard() {
  AttentionKinds all;
  all.add({.name = "softmax",
           .summary = "all earlier rows, without a matrix of scores",
           .make = with_projections(softmax)});
  all.add({.name = "softmax_materialized",
           .summary = "all earlier rows, with the matrix of scores",
           .make = with_projections(materialized)});
  all.add({.name = "local", .summary = "softmax over the last `block` rows", .make = with_projections(local)});
  all.add({.name = "linear_elu", .summary = "linear attention with elu + 1", .make = with_projections(linear_elu)});
  all.add({.name = "linear_favor",
           .summary = "linear attention with positive random features",
           .make = with_projections(linear_favor)});
  all.add({.name = "lsh", .summary = "softmax within buckets of a random hash", .make = with_projections(lsh)});
  all.add({.name = "sinkhorn",
           .summary = "softmax over one's own and one softly sorted block",
           .make = with_projections(sinkhorn)});
  all.add({.name = "linformer",
           .summary = "softmax over projected keys; has no causal form",
           .causal = false,
           .make = with_projections(linformer)});
  all.add({.name = "histogram",
           .summary = "LISA's tally of codewords, by codebooks of the layer's own",
           .smooth = false,
           .make = histogram});
  return all;
}

}  // namespace

void AttentionKinds::add(AttentionKindEntry entry) {
  const auto same = [&](const AttentionKindEntry& other) { return other.name == entry.name; };
  check<ValueError>(std::none_of(begin(), end(), same), "attention", "has a kind named '", entry.name, "' already");
  entries_.push_back(std::move(entry));
}

const AttentionKindEntry& AttentionKinds::at(const std::string& name) const {
  std::vector<std::string> known;
  for (const AttentionKindEntry& entry : entries_) {
    if (entry.name == name) return entry;
    known.push_back(entry.name);
  }
  const std::string nearest = nearest_name(name, known);
  fail<ConfigError>("attention", "knows no '", name, "'", nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
}

Attention AttentionKinds::make(const std::string& name, const AttentionSettings& settings, RngKey key) const {
  const AttentionKindEntry& entry = at(name);
  check<ValueError>(settings.heads > 0 && settings.width % settings.heads == 0, name,
                    "needs a width that divides by the heads; got width ", settings.width, ", heads ", settings.heads);
  check<ValueError>(entry.causal || settings.mask == ops::AttentionMask::bidirectional, name,
                    "has no causal form: a row would see what follows it");
  check<ValueError>(settings.block >= 1, name, "needs blocks of at least one row; got ", settings.block);
  return entry.make(entry, settings, key);
}

const AttentionKinds& attention_kinds() {
  static const AttentionKinds all = standard();
  return all;
}

}  // namespace tally::nn
