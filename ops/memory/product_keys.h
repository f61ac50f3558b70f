#pragma once

#include "tally/autograd/var.h"

namespace tally::ops {

struct ProductKeyOptions {
  std::int64_t heads = 1;
  std::int64_t slots = 32;  ///< k: chosen by each head for each query
};

struct ProductKeyChoice {
  Var scores;    ///< [T, heads, k], descending
  Tensor slots;  ///< [T, heads, k] i64 in [0, n^2): a n + b for sub-keys a and b
};

/// The k best of n^2 slots by product keys (Lample et al., arXiv 1907.05242), exactly: slot (a, b) has the score
/// <first half of the query, key a of table 0> + <second half, key b of table 1>.
///
/// queries [T, heads * 2 w] f32 or f64, head h in columns [2 h w, 2 (h + 1) w)   keys [heads, 2, n, w]
///
/// Of equal scores, rounded sums as they are, the one with the lower rank of a is better, then the lower rank of b; a
/// sub-key's rank is by its own score, then by its index. Only pairs with (rank of a) (rank of b) <= k can be among the
/// k best (ranks from 1), so O(n w + k log k) a head and query suffice. Choosing has no gradient; scores have, dense in
/// the keys. Keeps queries, keys and slots. Throws ShapeError, DTypeError; ValueError for no head, k below 1 or above
/// n^2, and queries or keys that are not finite.
ProductKeyChoice product_keys(const Var& queries, const Var& keys, const ProductKeyOptions& options = {});

}  // namespace tally::ops
