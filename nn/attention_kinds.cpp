#include "tally/nn/attention_kinds.h"

#include <algorithm>
#include <cmath>

#include "tally/core/json_fields.h"
#include "tally/nn/initializers.h"
#include "tally/ops/linear_attention.h"
#include "tally/ops/linformer_attention.h"
#include "tally/ops/lsh_attention.h"
#include "tally/ops/shape.h"
#include "tally/ops/sinkhorn_attention.h"
#include "tally/ops/softmax_attention_materialized.h"

namespace tally::nn {
namespace {

std::int64_t head_width(const AttentionSettings& options) { return options.width / options.heads; }

ops::AttentionOptions softmax_options(const AttentionSettings& options, std::int64_t window, const Context& context) {
  return {.heads = options.heads,
          .mask = options.mask,
          .window = window,
          .dropout = {.rate = context.training ? options.dropout : 0,
                      .key = context.at("attention").key,
                      .first_row = static_cast<std::uint64_t>(context.first_row)}};
}

Var softmax(const AttentionKind& a, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
            const Context& context) {
  return ops::softmax_attention(q, k, v, offsets, softmax_options(a.settings, a.settings.window, context));
}

Var materialized(const AttentionKind& a, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                 const Context& context) {
  return ops::softmax_attention_materialized(q, k, v, offsets, softmax_options(a.settings, a.settings.window, context));
}

Var local(const AttentionKind& a, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
          const Context& context) {
  return ops::softmax_attention(q, k, v, offsets, softmax_options(a.settings, a.settings.block, context));
}

Var linear_elu(const AttentionKind& a, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
               const Context&) {
  return ops::linear_attention(q, k, v, {}, offsets, {.heads = a.settings.heads, .mask = a.settings.mask});
}

void make_features(AttentionKind& a, RngKey key) {
  a.directions = Buffer(orthogonal_directions(a.settings.random_features, head_width(a.settings), key));
}

/// A buffer in the type of the rows it meets (checks run in f64).
Var in_type_of(const Buffer& buffer, const Var& rows) { return Var(buffer.value().to(rows.dtype())); }

Var linear_favor(const AttentionKind& a, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                 const Context&) {
  return ops::linear_attention(
      q, k, v, in_type_of(a.directions, q), offsets,
      {.heads = a.settings.heads, .mask = a.settings.mask, .feature_map = ops::FeatureMap::positive_random});
}

void make_rotations(AttentionKind& a, RngKey key) {
  const AttentionSettings& o = a.settings;
  check<ValueError>(o.buckets >= 2 && o.buckets % 2 == 0 && o.rounds >= 1, "lsh attention",
                    "needs an even number of buckets and at least one round; got ", o.buckets, " and ", o.rounds);
  a.directions = Buffer(normal({o.rounds, o.buckets / 2, head_width(o)}, 1, key));
}

Var lsh(const AttentionKind& a, const Var& q, const Var&, const Var& v, const Offsets& offsets, const Context&) {
  return ops::lsh_attention(q, v, in_type_of(a.directions, q), offsets,
                            {.heads = a.settings.heads, .mask = a.settings.mask, .chunk = a.settings.block});
}

void check_max_length(const AttentionSettings& options) {
  check<ValueError>(options.max_length >= 1, "attention", "needs to know the longest sequence; got ",
                    options.max_length);
}

void make_sorter(AttentionKind& a, RngKey key) {
  check_max_length(a.settings);
  const std::int64_t blocks = (a.settings.max_length + a.settings.block - 1) / a.settings.block;
  a.sorter = Linear::make({.in = a.settings.width, .out = blocks}, key);
}

/// The first row of each block of each sequence: all that a causal sorting may know of a block.
Tensor first_rows(const Offsets& offsets, std::int64_t block) {
  std::vector<std::int64_t> rows;
  for (std::int64_t s = 0; s < offsets.count(); ++s) {
    for (std::int64_t row = offsets.at(s); row < offsets.at(s + 1); row += block) rows.push_back(row);
  }
  const auto count = static_cast<std::int64_t>(rows.size());
  return Tensor::from(rows, {count});
}

Var sinkhorn(const AttentionKind& a, const Var& q, const Var& k, const Var& v, const Offsets& offsets, const Context&) {
  const Var logits = (*a.sorter)(ops::gather(q, first_rows(offsets, a.settings.block)));
  return ops::sinkhorn_attention(q, k, v, logits, offsets,
                                 {.heads = a.settings.heads, .mask = a.settings.mask, .block = a.settings.block});
}

void make_projections(AttentionKind& a, RngKey key) {
  check_max_length(a.settings);
  const Shape shape{a.settings.projected_keys, a.settings.max_length};
  const double deviation = std::sqrt(1.0 / static_cast<double>(a.settings.projected_keys));
  a.key_projection = Parameter(normal(shape, deviation, key.fold_in("keys")));
  a.value_projection = Parameter(normal(shape, deviation, key.fold_in("values")));
}

Var linformer(const AttentionKind& a, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
              const Context&) {
  return ops::linformer_attention(q, k, v, a.key_projection, a.value_projection, offsets, {.heads = a.settings.heads});
}

const AttentionKindEntry& find(const std::string& name) {
  std::vector<std::string> known;
  for (const AttentionKindEntry& entry : attention_kinds()) {
    if (entry.name == name) return entry;
    known.push_back(entry.name);
  }
  const std::string nearest = nearest_name(name, known);
  fail<ConfigError>("attention", "knows no '", name, "'", nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
}

}  // namespace

const std::vector<AttentionKindEntry>& attention_kinds() {
  static const std::vector<AttentionKindEntry> all = {
      {"softmax", "all earlier rows, without a matrix of scores", true, false, nullptr, softmax},
      {"softmax_materialized", "all earlier rows, with the matrix of scores", true, false, nullptr, materialized},
      {"local", "softmax over the last `block` rows", true, false, nullptr, local},
      {"linear_elu", "linear attention with elu + 1", true, false, nullptr, linear_elu},
      {"linear_favor", "linear attention with positive random features", true, false, make_features, linear_favor},
      {"lsh", "softmax within buckets of a random hash", true, true, make_rotations, lsh},
      {"sinkhorn", "softmax over one's own and one softly sorted block", true, false, make_sorter, sinkhorn},
      {"linformer", "softmax over projected keys; has no causal form", false, false, make_projections, linformer},
  };
  return all;
}

AttentionKind AttentionKind::make(const std::string& name, const AttentionSettings& settings, RngKey key) {
  const AttentionKindEntry& entry = find(name);
  check<ValueError>(settings.heads > 0 && settings.width % settings.heads == 0, name,
                    "needs a width that divides by the heads; got width ", settings.width, ", heads ", settings.heads);
  check<ValueError>(entry.causal || settings.mask == ops::AttentionMask::bidirectional, name,
                    "has no causal form: a row would see what follows it");
  check<ValueError>(settings.block >= 1, name, "needs blocks of at least one row; got ", settings.block);
  AttentionKind attention{
      .name = name, .settings = settings, .key_projection = {}, .value_projection = {}, .directions = {}, .sorter = {}};
  if (entry.prepare != nullptr) entry.prepare(attention, key);
  return attention;
}

Var AttentionKind::operator()(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                              const Context& context) const {
  return find(name).call(*this, q, k, v, offsets, context);
}

bool AttentionKind::shares_queries() const { return find(name).shares_queries; }

}  // namespace tally::nn
