#pragma once

#include "tally/autograd/var.h"
#include "tally/core/offsets.h"

namespace tally::ops {

/// The decayed sum of the rows up to each row of a packed sequence: y_t = sum_(j <= t) e^(-lambda (t - j)) x_j, by the
/// recurrence y_t = x_t + e^(-lambda) y_(t-1), so that it is finite at any length. With x the soft assignments of
/// tokens it is the tally of LISA's soft histograms (arXiv 2105.14068).
///
/// x [T, D]   log_decay: one element, or absent: lambda = exp(log_decay); absent is lambda = 0   offsets [N + 1]
///
/// Returns [T, D]. Sums are carried in double. gx is the same sum from the other end; the gradient of log_decay is
/// -lambda e^(-lambda) sum_t <gx_t, y_(t-1)>. Keeps y, when log_decay is tracked. Throws ShapeError, DTypeError;
/// ValueError for a log_decay whose exponential is not finite.
Var decayed_sum(const Var& x, const Var& log_decay, const Offsets& offsets);

}  // namespace tally::ops
