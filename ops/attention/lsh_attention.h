#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"
#include "tally/ops/attention/softmax_attention.h"

namespace tally::ops {

struct LshAttentionOptions {
  std::int64_t heads = 1;
  AttentionMask mask = AttentionMask::causal;
  std::int64_t chunk = 64;  ///< rows of a chunk
  double scale = 0;         ///< of scores; 0 for 1 / sqrt(width of a head)
};

/// Attention within buckets of a locality-sensitive hash (Reformer, Kitaev et al., arXiv 2001.04451). Queries and keys
/// are one: key j is q_j / |q_j|. In each round of hashing, head and sequence, row i falls into the bucket argmax([R
/// q_i; -R q_i]) (the first of equals); the rows of a bucket, in their order, are cut into chunks, and a row sees its
/// own chunk and the one before, causal: as far as itself. Softmax over the keys of all rounds together, a key that
/// several rounds show counting several times. A row's own key has the constant score -1000: it counts where there is
/// no other.
///
/// Chunks are counted within each bucket. (Reformer cuts the sorted list across buckets: later items then move the
/// borders between earlier ones, so that its causal form is not quite causal.)
///
/// qk [T, heads * d] f32 or f64, v [T, heads * e] of the same type, head h in columns [h d, (h + 1) d). rotations
/// [rounds, buckets / 2, d], standard normal, never differentiated, shared by the heads. Returns [T, heads * e]. The
/// hash has no gradient. Time O(T (rounds (buckets d + chunk (d + e)))). Keeps qk, v, its output and the log-sum-exp of
/// every row and head; backward hashes again. Throws ShapeError, DTypeError; ValueError for a chunk below 1 or a scale
/// that is not finite.
Var lsh_attention(const Var& qk, const Var& v, const Var& rotations, const Offsets& offsets,
                  const LshAttentionOptions& options = {});

}  // namespace tally::ops
