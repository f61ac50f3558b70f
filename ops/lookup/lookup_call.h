#pragma once

#include <string_view>
#include <vector>

#include "tally/core/offsets.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/catalog.h"

// What lookups in documents share: checks of a call, the order in which lookups are taken, and inputs of samples.

namespace tally::kernels {
struct LookupOrder;
}

namespace tally::ops::detail {

/// An optional gate of T rows as a kernel reads it: contiguous, or undefined. Throws ShapeError unless it is [T], and
/// ValueError, naming the row, for a log_decay above 0 or NaN, a gain outside [0, 1].
Tensor checked_log_decay(std::string_view op, const Var& log_decay, std::int64_t rows);
Tensor checked_gain(std::string_view op, const Var& gain, std::int64_t rows);

/// Lookups sorted by their place; of equals the first comes first.
class SortedLookups {
 public:
  /// `places` i64 [M] in [0, rows). Throws DTypeError, ShapeError; ValueError naming the place.
  SortedLookups(std::string_view op, const Tensor& places, std::int64_t count, std::int64_t rows);
  kernels::LookupOrder over(const Offsets& documents) const;

 private:
  Tensor places_, lookups_;  // i64 [M]
};

/// For samples: `count` places in [0, rows), in any order.
std::vector<std::int64_t> sample_places(std::int64_t count, std::int64_t rows, std::uint64_t stream);
/// For samples: log_decay = -0.01 - strength |normal|, and gains in [0.05, 0.95], of so many rows: inside their bounds,
/// so that derivatives can be measured.
Tensor sample_log_decay(std::int64_t rows, std::uint64_t stream, double strength);
Tensor sample_gain(std::int64_t rows, std::uint64_t stream);

}  // namespace tally::ops::detail
