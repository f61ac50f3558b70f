#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

/// Lookups in fixed-size representations (de Brebisson & Vincent, arXiv 1609.05866): R_j = C_d q_j for the queries j of
/// document d, whose C_d is symmetric. Time O(k^2) for each query, whatever the document's length was.
///
/// packed [N, k (k + 1) / 2]: lower triangles row by row, as outer_sums() returns them      q [M, k]
/// queries [N + 1]: queries of document d are rows [queries.at(d), queries.at(d + 1)) of q
///
/// packed and q are f32 or f64, of one type; rows may lie any distance apart. Returns [M, k]. A document with a few
/// queries is read where it stands, k (k + 1) / 2 numbers; one with more is unpacked for a matrix product. Keeps packed
/// and q; dq_j = C_d g_j, and the gradient of packed is that of both places of an element: g_i q_j + g_j q_i.
///
/// Throws ShapeError, DTypeError; ValueError for packed that is not finite, naming the document.
Var symmetric_lookup(const Var& packed, const Var& q, const Offsets& queries);

}  // namespace tally::ops
