#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tally/core/tensor.h"

namespace tally::ops {

/// The tokens that a loss counts, in order: those whose target is not -1 and whose weight is not 0.
struct LossTokens {
  std::vector<std::int64_t> tokens;   ///< row of x
  std::vector<std::int64_t> targets;  ///< row of the item table
  std::vector<double> weights;        ///< weight times the loss's constant factor

  std::int64_t count() const { return static_cast<std::int64_t>(tokens.size()); }

  /// From `targets` (i32 or i64 [tokens]) and `weights` (f32 or f64 [tokens], or undefined for 1). Throws ShapeError,
  /// DTypeError, ValueError for a factor or weight that is not finite, and IndexError, naming the position, for a
  /// target outside [0, items) that is not -1.
  static LossTokens select(std::string_view op, const Tensor& targets, const Tensor& weights, double factor,
                           std::int64_t tokens, std::int64_t items);
};

/// `ids` (i32 or i64) as i64, contiguous. Throws DTypeError, and IndexError, naming `what` and the position, for one
/// outside [0, bound).
Tensor checked_ids(std::string_view op, std::string_view what, const Tensor& ids, std::int64_t bound);

/// Throws unless x is [T, D] and table [I, D] of the same floating type.
void check_tokens_and_table(std::string_view op, const Tensor& x, const Tensor& table);

}  // namespace tally::ops
