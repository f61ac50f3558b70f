#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

/// Lookups in a gated linear memory at any time of a document: R_j = S_t^T q_j at t = places[j], where S_t = a_t
/// S_(t-1)
/// + b_t k_t v_t^T from zero before each document's first row, a_t = exp(log_decay_t) and b_t = gain_t. With k = v = f
/// it is the gated linear attention of de Brebisson & Vincent (arXiv 1609.05866), C_t = a_t C_(t-1) + b_t f_t f_t^T.
///
/// q [M, K]   k [T, K]   v [T, V]: f32 or f64, all of one type; rows may lie any distance apart
/// log_decay [T] at most 0, -infinity for a = 0, or absent: a = 1      gain [T] in [0, 1], or absent: b = 1
/// places i64 [M]: rows counted over all documents; in any order, any number at a row
/// offsets [N + 1]: where each document begins, and T
///
/// Returns [M, V]. Time O(T K V), and O(K V) more for each lookup; rows after a document's last lookup cost nothing.
/// Rows go in chunks of 64: within one a lookup meets keys by products, and what came before by the state S [K, V], the
/// only one there is. Decays are running products, exact for a = 0.
///
/// Keeps its inputs, no state and no output. Backward walks forward again for q and back with G = dL/dS_t for the rest:
/// db_t = k_t^T G_t v_t, dk_t = b_t G_t v_t, dv_t = b_t G_t^T k_t. The gradient of log_decay_t, a_t <G_t, S_(t-1)>,
/// needs no S: it is what lookups from t on read of rows before t, summed in double; 0 where a_t is 0.
///
/// Throws ShapeError, DTypeError; ValueError for a place outside [0, T), and, naming the row, for k or v that are not
/// finite, a log_decay above 0 or NaN, and a gain outside [0, 1].
Var causal_lookup(const Var& q, const Var& k, const Var& v, const Var& log_decay, const Var& gain, const Tensor& places,
                  const Offsets& offsets);

}  // namespace tally::ops
