#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/core/random.h"
#include "tally/nn/attention/attention_kinds.h"

// Attentions over one sequence, as `tally bench lengths` compares them: queries, keys and values given; causal and one
// head as wide as the rows unless it is said otherwise.

namespace tally::tools {

struct AttentionSizes {
  std::int64_t length = 0, width = 0, codebooks = 0, codewords = 0;
  std::int64_t heads = 1;  ///< of softmax and dispatcher attentions
};

/// The sequence that every attention of a length gets: independent standard normal elements, [length, width] each.
struct LengthSequence {
  AttentionSizes sizes;
  Tensor x, queries, keys, values;
  Offsets offsets;

  static LengthSequence make(const AttentionSizes& sizes, RngKey key);
};

/// An attention with everything made that does not depend on the sequence.
struct ReadyAttention {
  std::vector<Tensor> inputs;                                ///< gradients are taken of all of them
  std::function<Var(const std::vector<Var>&)> attend;        ///< [length, width]
  std::vector<std::pair<std::string, Var>> parameters = {};  ///< of a layer, by path: leaves that have gradients too
};

struct LengthAttention {
  std::string name;
  std::string description;
  std::string formula;  ///< of `operations`
  /// Of the matrix products that its forward needs; empty: those of a run are counted.
  std::function<double(const AttentionSizes&)> operations;
  std::function<ReadyAttention(const LengthSequence&)> make;
  /// Bytes of tensors beyond its inputs, where they may not fit into memory; else absent, and memory is measured.
  std::function<double(const AttentionSizes&, bool backward)> bytes = {};
  bool causal = true;
};

/// All of them; LISA first, then softmax. A new attention is one more entry.
const std::vector<LengthAttention>& length_attentions();

/// All of them, and the kinds of a table that are not among them: as whole layers, projections included, with their
/// default options. Their operations are those of a run.
std::vector<LengthAttention> length_attentions(const nn::AttentionKinds& kinds);

/// All kinds of a table as such layers, those too that have the name of an attention above.
std::vector<LengthAttention> length_layers(const nn::AttentionKinds& kinds);

/// The kinds of a table in encoders of so many blocks, as SASRec's: attention and a feed-forward part as wide as the
/// rows, normed before. Experts are as many as the sizes have codewords in all. Operations are those of a run.
std::vector<LengthAttention> length_encoders(const nn::AttentionKinds& kinds, std::int64_t blocks,
                                             ops::AttentionMask mask);

/// Those of `all` that are named, in this order. Throws ConfigError for an unknown name, with the nearest one and a
/// list of all.
std::vector<const LengthAttention*> chosen_attentions(const std::vector<std::string>& names,
                                                      const std::vector<LengthAttention>& all = length_attentions());

}  // namespace tally::tools
