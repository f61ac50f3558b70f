#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

struct SoftmaxLookupOptions {
  double scale = 1;  ///< of the products of a query and a key
};

/// Softmax attention of single queries to documents that they read up to a place: R_j = sum_t p_jt v_t, p_j =
/// softmax_t(scale <q_j, k_t>) over the rows t of one document, from its first to row places[j]. With k = v = the rows
/// of an encoder and places at the documents' ends it is the softmax reader that de Brebisson & Vincent (arXiv
/// 1609.05866) compare with. Time O(rows seen (K + V)) for each query.
///
/// q [M, K]   keys [T, K]   values [T, V]: f32 or f64, all of one type; rows may lie any distance apart
/// places i64 [M]: the last row that a query sees, counted over all documents; in any order, any number at a row
/// offsets [N + 1]: where each document begins, and T
///
/// Returns [M, V]. Never stores a matrix of scores; keeps q, keys, values, its output and the log-sum-exp of every
/// query [M], and computes probabilities again in backward. Throws ShapeError, DTypeError; ValueError for a scale that
/// is not finite, keys or values that are not (naming the row), and a place outside [0, T).
Var softmax_lookup(const Var& q, const Var& keys, const Var& values, const Tensor& places, const Offsets& offsets,
                   const SoftmaxLookupOptions& options = {});

}  // namespace tally::ops
