#include "tools/length_attentions.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "tally/autograd/tape.h"
#include "tally/core/io/json_fields.h"
#include "tally/nn/blocks/transformer.h"
#include "tally/nn/histogram_attention.h"
#include "tally/nn/initializers.h"
#include "tally/nn/quantization.h"
#include "tally/ops/attention/causal_dispatcher_attention.h"
#include "tally/ops/attention/linformer_attention.h"
#include "tally/ops/attention/lsh_attention.h"
#include "tally/ops/attention/normalized_linear_attention.h"
#include "tally/ops/attention/sinkhorn_attention.h"
#include "tally/ops/attention/softmax_attention.h"
#include "tally/ops/attention/softmax_attention_materialized.h"

namespace tally::tools {
namespace {

constexpr RngKey kParameters{17, 0};

struct LisaChoice {
  bool soft = false;
  double decay = 0;
  bool encode = true;  ///< or codes and logits are given
};

/// LISA from rows x to its output. Tables depend on parameters alone, so a model makes them once; they are inputs.
ReadyAttention make_lisa(const LengthSequence& sequence, const LisaChoice& choice) {
  const AttentionSizes& sizes = sequence.sizes;
  nn::VectorQuantizer quantizer =
      nn::VectorQuantizer::make({.codebooks = sizes.codebooks, .codewords = sizes.codewords, .width = sizes.width},
                                kParameters.fold_in("quantizer"));
  if (choice.soft) quantizer.options.quantization.assignment = ops::CodewordAssignment::soft;
  const nn::HistogramSelfAttention attention = nn::HistogramSelfAttention::make(
      {.codebooks = sizes.codebooks,
       .width = sizes.width,
       .assignment = choice.soft ? ops::CodewordAssignment::soft : ops::CodewordAssignment::hard,
       .decay = choice.decay},
      kParameters.fold_in("attention"));
  const nn::HistogramTables tables = attention.tables(quantizer.codewords());
  const Offsets offsets = sequence.offsets;

  if (!choice.encode) {
    const ops::VectorQuantization quantized = quantizer(sequence.x);
    return {{tables.inner.value(), tables.values.value(), quantized.logits.value()},
            [=, codes = quantized.codes](const std::vector<Var>& in) {
              return attention(codes, recording(in[2]) ? in[2] : Var(), {in[0], in[1]}, offsets);
            }};
  }
  const ops::VectorQuantizationTables quantized_by = quantizer.tables();
  std::vector<Tensor> inputs{tables.inner.value(), tables.values.value(), sequence.x, quantized_by.codebooks.value(),
                             quantized_by.projected.value()};
  if (sizes.codebooks > 1) inputs.push_back(quantized_by.products.value());
  return {std::move(inputs), [=, options = quantizer.options.quantization](const std::vector<Var>& in) {
            const ops::VectorQuantizationTables encoder{in[3], in[4], in.size() > 5 ? in[5] : quantized_by.products,
                                                        quantized_by.bias, quantized_by.first_equal};
            if (!choice.soft && !recording(in[2])) {
              return attention(ops::encode_codes(in[2].value(), encoder, options), {}, {in[0], in[1]}, offsets);
            }
            const ops::VectorQuantization quantized = ops::vector_quantization(in[2], encoder, options);
            return attention(quantized.codes, quantized.logits, {in[0], in[1]}, offsets);
          }};
}

template <class Attention>
ReadyAttention of_queries_keys_values(const LengthSequence& sequence, Attention attention) {
  return {{sequence.queries, sequence.keys, sequence.values},
          [attention, offsets = sequence.offsets](const std::vector<Var>& in) {
            return attention(in[0], in[1], in[2], offsets);
          }};
}

double count(std::int64_t n) { return static_cast<double>(n); }

/// L B W D: multiplications of all rows with a table of codewords.
double product_with_codewords(const AttentionSizes& s) {
  return count(s.length) * count(s.codebooks * s.codewords) * count(s.width);
}

double causal_pairs(const AttentionSizes& s) { return 0.5 * count(s.length) * (count(s.length) + 1); }

/// Rows that `local` sees: as many as LISA has codewords.
std::int64_t local_window(const AttentionSizes& s) { return s.codebooks * s.codewords; }

double local_pairs(const AttentionSizes& s) {
  const double window = count(std::min(local_window(s), s.length));
  return window * count(s.length) - 0.5 * window * (window - 1);
}

// Sizes of those that have sizes of their own: as many features, projected keys and hash buckets as LISA has codewords.
constexpr std::int64_t kLshRounds = 2, kRows = 64;  // rows of a chunk or block

std::int64_t lsh_buckets(const AttentionSizes& s) {
  return std::max<std::int64_t>(2, s.codebooks * s.codewords / 2 * 2);
}

std::int64_t sinkhorn_block_count(const AttentionSizes& s) { return (s.length + kRows - 1) / kRows; }

double linear_operations(const AttentionSizes& s, std::int64_t features) {
  return 4 * count(s.length) * count(features) * count(s.width);
}

LengthAttention linear_attention_of(ops::FeatureMap map) {
  const bool elu = map == ops::FeatureMap::elu;
  return {.name = elu ? "linear_elu" : "linear_favor",
          .description = elu ? "linear attention, features elu + 1" : "linear attention, D positive random features",
          .formula = elu ? "4 L D^2: states and outputs" : "8 L D^2: features of queries and keys, states and outputs",
          .operations = [elu](const AttentionSizes& s) { return (elu ? 1 : 2) * linear_operations(s, s.width); },
          .make =
              [map, elu](const LengthSequence& s) {
                const std::int64_t width = s.sizes.width;
                const Var directions =
                    elu ? Var() : Var(nn::orthogonal_directions(width, width, kParameters.fold_in("directions")));
                return of_queries_keys_values(s, [=](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
                  return ops::normalized_linear_attention(q, k, v, directions, offsets, {.feature_map = map});
                });
              }};
}

ReadyAttention make_lsh(const LengthSequence& s) {
  const Var rotations =
      nn::normal({kLshRounds, lsh_buckets(s.sizes) / 2, s.sizes.width}, 1, kParameters.fold_in("rotations"));
  return {{s.queries, s.values}, [rotations, offsets = s.offsets](const std::vector<Var>& in) {
            return ops::lsh_attention(in[0], in[1], rotations, offsets, {.chunk = kRows});
          }};
}

/// Where rows spread evenly over the buckets: half of the own chunk, and the one before unless it is the first.
double lsh_operations(const AttentionSizes& s) {
  const double bucket = count(s.length) / count(lsh_buckets(s)), chunk = std::min(bucket, count(kRows));
  const double seen = 0.5 * (chunk + 1) + count(kRows) * (1 - chunk / bucket);
  const double hashing = count(s.length) * count(lsh_buckets(s)) * count(s.width);
  return count(kLshRounds) * (hashing + 4 * count(s.length) * seen * count(s.width));
}

ReadyAttention make_sinkhorn(const LengthSequence& s) {
  const std::int64_t blocks = sinkhorn_block_count(s.sizes);
  return {{s.queries, s.keys, s.values, nn::normal({blocks, blocks}, 1, kParameters.fold_in("sort_logits"))},
          [offsets = s.offsets](const std::vector<Var>& in) {
            return ops::sinkhorn_attention(in[0], in[1], in[2], in[3], offsets, {.block = kRows});
          }};
}

double sinkhorn_operations(const AttentionSizes& s) {
  const double seen = count(std::min(s.length, kRows)) * 1.5;
  const double mixing = 0.5 * count(sinkhorn_block_count(s) - 1) * count(s.length);  // with earlier blocks alone
  return 4 * count(s.width) * (count(s.length) * seen + mixing);
}

ReadyAttention make_linformer(const LengthSequence& s) {
  const auto projection = [&](const char* name) {
    return nn::normal({s.sizes.codebooks * s.sizes.codewords, s.sizes.length}, 0.02, kParameters.fold_in(name));
  };
  return {{s.queries, s.keys, s.values, projection("key_projection"), projection("value_projection")},
          [offsets = s.offsets](const std::vector<Var>& in) {
            return ops::linformer_attention(in[0], in[1], in[2], in[3], in[4], offsets);
          }};
}

using SoftmaxAttention = Var (*)(const Var&, const Var&, const Var&, const Offsets&, const ops::AttentionOptions&);

ReadyAttention make_softmax(const LengthSequence& s, SoftmaxAttention attention, ops::AttentionMask mask) {
  return of_queries_keys_values(
      s, [=, heads = s.sizes.heads](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
        return attention(q, k, v, offsets, {.heads = heads, .mask = mask});
      });
}

ReadyAttention make_dispatcher(const LengthSequence& s, bool causal) {
  const std::int64_t width = s.sizes.width;
  const double deviation = 1 / std::sqrt(count(width));
  return {{nn::normal({s.sizes.codebooks * s.sizes.codewords, width}, 1, kParameters.fold_in("experts")), s.keys,
           s.values, s.queries, nn::normal({width, width}, deviation, kParameters.fold_in("key_projection")),
           nn::normal({width, width}, deviation, kParameters.fold_in("value_projection"))},
          [causal, heads = s.sizes.heads, offsets = s.offsets](const std::vector<Var>& in) {
            const ops::DispatcherInputs inputs{in[0], in[1], in[2], in[3], in[4], in[5]};
            return causal ? ops::causal_dispatcher_attention(inputs, offsets, {.heads = heads})
                          : ops::dispatcher_attention(inputs, offsets, {.heads = heads}).output;
          }};
}

/// With as many experts, or whatever stands for them, as there are codewords in all.
nn::AttentionChoice sized_choice(const nn::AttentionKinds& kinds, const std::string& name, const AttentionSizes& s) {
  nn::AttentionChoice choice(kinds, name);
  for (const char* key : {"experts", "projected_keys", "k_interests"}) {
    if (choice.options.list().find(key) == nullptr) continue;
    set_option([&choice] { return choice.options.list(); }, name, key, s.codebooks * s.codewords);
  }
  return choice;
}

nn::AttentionSettings settings_of(const AttentionSizes& s, ops::AttentionMask mask) {
  return {.width = s.width, .heads = s.heads, .mask = mask, .max_length = s.length};
}

/// A module's parameters, as the leaves that its calls record. It must not be copied or changed any more.
template <class M>
std::vector<std::pair<std::string, Var>> leaves_of(const M& module) {
  std::vector<std::pair<std::string, Var>> leaves;
  nn::walk("", module, [&](const std::string& path, const auto& field) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, nn::Parameter>) {
      leaves.emplace_back(path, field.var());
    }
  });
  return leaves;
}

/// A kind of the table as a layer over the rows.
LengthAttention layer_of(const nn::AttentionKinds& kinds, const nn::AttentionRow& row) {
  const ops::AttentionMask mask = row.causal ? ops::AttentionMask::causal : ops::AttentionMask::bidirectional;
  return {.name = row.name,
          .description = "the layer: " + row.summary,
          .formula = "those of its products, counted as it runs",
          .operations = {},
          .make =
              [kinds, mask, name = row.name](const LengthSequence& s) {
                const auto layer = std::make_shared<const nn::Attention>(nn::make_attention(
                    sized_choice(kinds, name, s.sizes), settings_of(s.sizes, mask), kParameters.fold_in(name)));
                return ReadyAttention{{s.x},
                                      [layer, offsets = s.offsets](const std::vector<Var>& in) {
                                        return (*layer)(in[0], in[0], {offsets}, {});
                                      },
                                      leaves_of(*layer)};
              },
          .causal = row.causal};
}

ReadyAttention make_encoder(const nn::AttentionChoice& choice, std::int64_t count, ops::AttentionMask mask,
                            const LengthSequence& s) {
  const auto blocks = std::make_shared<std::vector<nn::TransformerBlock>>();
  for (std::int64_t b = 0; b < count; ++b) {
    blocks->push_back(nn::TransformerBlock::make({.attention = choice, .settings = settings_of(s.sizes, mask)},
                                                 kParameters.fold_in(static_cast<std::uint64_t>(b))));
  }
  return {{s.x},
          [blocks, offsets = s.offsets](const std::vector<Var>& in) {
            Var x = in[0];
            for (const nn::TransformerBlock& block : *blocks) x = block(x, {offsets}, {});
            return x;
          },
          leaves_of(std::as_const(*blocks))};
}

double lisa_operations(const AttentionSizes& s) { return 4 * product_with_codewords(s); }

constexpr const char* kLisaFormula = "4 L B W D: codes 2 L B W D, values 2 L B W D";
constexpr const char* kCausalFormula = "2 L (L + 1) D: scores and values of the pairs that the mask lets through";

std::vector<LengthAttention> make_attentions() {
  std::vector<LengthAttention> all;
  all.push_back({.name = "lisa",
                 .description = "attention by codeword histogram, hard codes, encoding of the rows included",
                 .formula = kLisaFormula,
                 .operations = lisa_operations,
                 .make = [](const LengthSequence& s) { return make_lisa(s, {}); }});
  all.push_back({.name = "lisa_without_encoding",
                 .description = "the same, codes given",
                 .formula = "2 L B W D",
                 .operations = [](const AttentionSizes& s) { return 2 * product_with_codewords(s); },
                 .make = [](const LengthSequence& s) { return make_lisa(s, {.encode = false}); }});
  all.push_back({.name = "lisa_decayed",
                 .description = "as lisa, counts decayed by e^-0.1 a row",
                 .formula = kLisaFormula,
                 .operations = lisa_operations,
                 .make = [](const LengthSequence& s) { return make_lisa(s, {.decay = 0.1}); }});
  all.push_back({.name = "lisa_soft",
                 .description = "as lisa, soft assignments",
                 .formula = "4 L B W D + L B (B - 1) W^2: codes and their residual passes, values",
                 .operations =
                     [](const AttentionSizes& s) {
                       return lisa_operations(s) +
                              count(s.length * s.codebooks * (s.codebooks - 1)) * count(s.codewords * s.codewords);
                     },
                 .make = [](const LengthSequence& s) { return make_lisa(s, {.soft = true}); }});
  all.push_back({.name = "softmax",
                 .description = "fused softmax attention, no matrix of scores",
                 .formula = kCausalFormula,
                 .operations = [](const AttentionSizes& s) { return 4 * causal_pairs(s) * count(s.width); },
                 .make =
                     [](const LengthSequence& s) {
                       return make_softmax(s, ops::softmax_attention, ops::AttentionMask::causal);
                     }});
  all.push_back({.name = "softmax_materialized",
                 .description = "softmax attention by a whole matrix of scores",
                 .formula = kCausalFormula,
                 .operations = [](const AttentionSizes& s) { return 4 * causal_pairs(s) * count(s.width); },
                 .make =
                     [](const LengthSequence& s) {
                       return make_softmax(s, ops::softmax_attention_materialized, ops::AttentionMask::causal);
                     },
                 .bytes =
                     [](const AttentionSizes& s, bool backward) {
                       const double scores = count(s.heads) * count(s.length) * count(s.length),
                                    rows = count(s.length * s.width);
                       return 4 * (backward ? 2 * scores + 4 * rows : scores + rows);
                     }});
  all.push_back({.name = "softmax_bidirectional",
                 .description = "fused softmax attention to all rows; not causal",
                 .formula = "4 L^2 D: scores and values of all pairs",
                 .operations = [](const AttentionSizes& s) { return 4 * count(s.length) * count(s.length * s.width); },
                 .make =
                     [](const LengthSequence& s) {
                       return make_softmax(s, ops::softmax_attention, ops::AttentionMask::bidirectional);
                     },
                 .causal = false});
  all.push_back(
      {.name = "local",
       .description = "fused softmax attention to the last B W rows",
       .formula = "4 D pairs: each row with at most the last B W",
       .operations = [](const AttentionSizes& s) { return 4 * local_pairs(s) * count(s.width); },
       .make =
           [](const LengthSequence& s) {
             return of_queries_keys_values(
                 s, [window = local_window(s.sizes)](const Var& q, const Var& k, const Var& v, const Offsets& o) {
                   return ops::softmax_attention(q, k, v, o, {.window = window});
                 });
           }});
  all.push_back(linear_attention_of(ops::FeatureMap::elu));
  all.push_back(linear_attention_of(ops::FeatureMap::positive_random));
  all.push_back(
      {.name = "lsh",
       .description = "within buckets of a hash (Reformer), two rounds, B W buckets, chunks of 64 rows; keys "
                      "are queries",
       .formula = "2 (L B W D + 4 L D keys): hashes; half of the own chunk and the one before, buckets being even",
       .operations = lsh_operations,
       .make = make_lsh});
  all.push_back({.name = "sinkhorn",
                 .description = "own block of 64 rows and one mixed of all earlier blocks (Sinkhorn); quadratic in the "
                                "number of blocks",
                 .formula = "4 D (96 L + L (blocks - 1) / 2): own and mixed block, mixing",
                 .operations = sinkhorn_operations,
                 .make = make_sinkhorn});
  all.push_back({.name = "linformer",
                 .description = "B W projected keys and values (Linformer); not causal: it has no such form",
                 .formula = "8 L B W D: projections of keys and values, scores, outputs",
                 .operations = [](const AttentionSizes& s) { return 8 * product_with_codewords(s); },
                 .make = make_linformer,
                 .causal = false});
  all.push_back({.name = "dispatcher",
                 .description = "B W experts gather the rows, which read them (ELASTIC); not causal",
                 .formula = "8 L B W D + 4 B W D^2: scores and sums of both steps, projections of experts",
                 .operations =
                     [](const AttentionSizes& s) {
                       return 8 * product_with_codewords(s) +
                              4 * count(s.codebooks * s.codewords) * count(s.width * s.width);
                     },
                 .make = [](const LengthSequence& s) { return make_dispatcher(s, false); },
                 .causal = false});
  all.push_back({.name = "dispatcher_causal",
                 .description = "the same, of earlier rows alone: in chunks of 32 rows, projections moved to the rows",
                 .formula = "2 L (2 B W D + 2 H (D^2 / H + B W D + 32 (D + H B W))): H heads",
                 .operations =
                     [](const AttentionSizes& s) {
                       const double heads = count(s.heads), experts = count(s.codebooks * s.codewords),
                                    width = count(s.width);
                       return 2 * count(s.length) *
                              (2 * experts * width +
                               2 * heads * (width * width / heads + experts * width + 32 * (width + heads * experts)));
                     },
                 .make = [](const LengthSequence& s) { return make_dispatcher(s, true); }});
  return all;
}

}  // namespace

LengthSequence LengthSequence::make(const AttentionSizes& sizes, RngKey key) {
  const auto rows = [&](const char* name) { return nn::normal({sizes.length, sizes.width}, 1, key.fold_in(name)); };
  return {sizes, rows("x"), rows("queries"), rows("keys"), rows("values"), Offsets::single(sizes.length)};
}

const std::vector<LengthAttention>& length_attentions() {
  static const std::vector<LengthAttention> all = make_attentions();
  return all;
}

std::vector<LengthAttention> length_attentions(const nn::AttentionKinds& kinds) {
  std::vector<LengthAttention> all = length_attentions();
  for (const nn::AttentionRow& row : kinds) {
    const auto same = [&](const LengthAttention& other) { return other.name == row.name; };
    if (std::none_of(all.begin(), all.end(), same)) all.push_back(layer_of(kinds, row));
  }
  return all;
}

std::vector<LengthAttention> length_layers(const nn::AttentionKinds& kinds) {
  std::vector<LengthAttention> all;
  for (const nn::AttentionRow& row : kinds) all.push_back(layer_of(kinds, row));
  return all;
}

std::vector<LengthAttention> length_encoders(const nn::AttentionKinds& kinds, std::int64_t blocks,
                                             ops::AttentionMask mask) {
  std::vector<LengthAttention> all;
  for (const nn::AttentionRow& row : kinds) {
    if (!row.causal && mask == ops::AttentionMask::causal) continue;
    all.push_back({.name = row.name,
                   .description = detail::join("an encoder of ", blocks, " blocks: ", row.summary),
                   .formula = "those of its products, counted as it runs",
                   .operations = {},
                   .make =
                       [kinds, blocks, mask, name = row.name](const LengthSequence& s) {
                         return make_encoder(sized_choice(kinds, name, s.sizes), blocks, mask, s);
                       },
                   .causal = mask == ops::AttentionMask::causal});
  }
  return all;
}

std::vector<const LengthAttention*> chosen_attentions(const std::vector<std::string>& names,
                                                      const std::vector<LengthAttention>& all) {
  std::vector<const LengthAttention*> chosen;
  for (const std::string& name : names) {
    const LengthAttention* found = nullptr;
    std::vector<std::string> known;
    for (const LengthAttention& attention : all) {
      known.push_back(attention.name);
      if (attention.name == name) found = &attention;
    }
    if (found == nullptr) {
      const std::string nearest = nearest_name(name, known);
      std::string list;
      for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
      fail<ConfigError>("--attentions", "knows no '", name, "'",
                        nearest.empty() ? "" : "; did you mean '" + nearest + "'?", " (there are ", list, ")");
    }
    chosen.push_back(found);
  }
  return chosen;
}

}  // namespace tally::tools
