#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

/// The fixed-size representation of each document by the outer products of its rows (de Brebisson & Vincent, arXiv
/// 1609.05866): C = (prod a) C_0 + sum_t w_t f_t f_t^T with w_t = b_t prod_(u > t) a_u, a_t = exp(log_decay_t) and b_t
/// = gain_t: the last state of C_t = a_t C_(t-1) + b_t f_t f_t^T.
///
/// f [T, k] f32 or f64; rows may lie any distance apart
/// log_decay [T] at most 0, -infinity for a = 0, or absent: a = 1      gain [T] in [0, 1], or absent: b = 1
/// initial [N, k (k + 1) / 2]: C_0 of each document, packed, or absent: zero
/// offsets [N + 1]: where each document begins, and T
///
/// Returns [N, k (k + 1) / 2]: the lower triangles of the symmetric C, row by row: C_ij, j <= i, at i (i + 1) / 2 + j.
/// An element off the diagonal stands for two places of C, and its gradient counts both. Half the work of a product:
/// only blocks of the lower triangle are computed. Sums over many rows go by blocks in a fixed tree.
///
/// Keeps its inputs. Backward: with D = dC + dC^T, df_t = w_t D f_t, dw_t = f_t^T dC f_t, dgain_t = dw_t prod_(u > t)
/// a_u, dlog_decay_u = sum_(t < u) w_t dw_t + (prod a) <C_0, dC> (in double; 0 where a_u is 0), dC_0 = (prod a) dC.
///
/// Throws ShapeError, DTypeError; ValueError, naming the row, for f or initial that are not finite, a log_decay above 0
/// or NaN, and a gain outside [0, 1].
Var outer_sums(const Var& f, const Var& log_decay, const Var& gain, const Var& initial, const Offsets& offsets);

}  // namespace tally::ops
