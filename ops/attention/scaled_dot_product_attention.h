#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/core/words.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

struct ScaledDotProductOptions {
  std::int64_t heads = 1;
  std::int64_t key_heads = 0;  ///< of keys and values, each for as many neighbouring heads of queries; 0: as many
  AttentionMask mask = AttentionMask::causal;
  std::int64_t left_window = -1, right_window = -1;  ///< keys seen before and after the own place; -1 for no limit
  double scale = 0;                                  ///< of scores; 0 for 1 / sqrt(width of a head)
  double soft_cap = 0;                               ///< c of c tanh(score / c), below which scores stay; 0 for none
};

/// What may be given beside queries, keys and values. Tables are [N or 1, heads or 1, queries or 1, keys or 1]: a size
/// of 1 stands for all, and of queries and keys there are at least as many as in the longest sequence, counted from its
/// first.
struct ScoreTables {
  Var bias = {};        ///< added to capped scores; -infinity hides a key
  Tensor visible = {};  ///< u8, 0 for keys that are not seen
  Tensor starts = {};   ///< i64 [N], where each first query stands among the keys; absent: at the first one
};

/// Softmax attention of packed queries to packed keys, in its general form, ONNX's Attention: grouped heads (Ainslie et
/// al., arXiv 2305.13245), sequences of keys of other lengths, a bias, a mask, a cap. For query i of sequence n, with
/// p = i + starts_n, over the keys j of sequence n,
///
///   s_ij = c tanh(scale <q_i, k_j> / c) + bias_nhij   output_i = sum_j softmax_j(s_ij) v_j
///
/// Seen are keys with visible_nhij, p - left_window <= j <= p + right_window, and j <= p if causal. A query that sees
/// none, or whose scores are all -infinity, gives 0. For queries to their own sequence without grouped heads, bias or
/// cap softmax_attention() is faster.
///
/// q [T, heads * d] f32 or f64, k [S, key_heads * d], v [S, key_heads * e] and the bias of the same type, head h in
/// columns [h d, (h + 1) d), with its keys in head h / (heads / key_heads); rows may lie any distance apart. offsets of
/// queries and key_offsets [N + 1]. Returns [T, heads * e]. The scores of 64 queries of one head are in memory at a
/// time. Keeps q, k, v and the tables; backward computes probabilities again. Sums over a row of scores, and the bias's
/// gradient, are in double. A non-finite score that is seen makes its row NaN; a value that is not finite may reach
/// rows that do not see it (0 times infinity). Throws ShapeError, DTypeError; ValueError for heads that do not fit, a
/// window below -1, a scale or cap that is not finite, a negative cap, or starts beyond 2^40.
Var scaled_dot_product_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                                 const Offsets& key_offsets, const ScaledDotProductOptions& options = {},
                                 const ScoreTables& tables = {});

/// How far scores have come on their way to probabilities.
enum class ScoresAt { products, capped, biased, probabilities };
constexpr auto words(ScoresAt) {
  using W = Word<ScoresAt>;
  return std::array{W{"products", ScoresAt::products}, W{"capped", ScoresAt::capped}, W{"biased", ScoresAt::biased},
                    W{"probabilities", ScoresAt::probabilities}};
}

/// The scores of scaled_dot_product_attention() themselves, to look at: those of each sequence [heads, queries, keys],
/// one after the other. Times `scale`; capped; with the bias, and -infinity where a key is not seen; or softmaxed.
/// Without a gradient. Throws as it does.
Tensor attention_scores(const Var& q, const Var& k, const Offsets& offsets, const Offsets& key_offsets, ScoresAt stage,
                        const ScaledDotProductOptions& options = {}, const ScoreTables& tables = {});

}  // namespace tally::ops
