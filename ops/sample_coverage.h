#pragma once

#include "tally/ops/catalog.h"

namespace tally::ops {

/// What the samples of an entry vary, as words: "mask=causal" and "mask=bidirectional" for an option of words or flags,
/// "window default" and "window set" for one of numbers, "weights given" and "weights absent" for an optional input.
struct SampleFactor {
  std::string name;
  std::vector<std::string> levels;
};
std::vector<SampleFactor> sample_factors(const OpEntry& entry);
/// The level of each factor in one sample.
std::vector<std::string> levels_of(const OpEntry& entry, const OpSample& sample);

/// Which combinations of two levels, and of all optional inputs, occur in samples whose gradient is checked (of one
/// level, for an entry with a single factor). Those that the entry declares apart do not count.
struct PairCoverage {
  std::int64_t covered = 0, total = 0;
  std::vector<std::string> missing;  ///< "mask=bidirectional with scale set"
};
PairCoverage pair_coverage(const OpEntry& entry);

/// Samples in which every two of the values meet, and meet every combination of optional inputs, but for pairs that are
/// declared apart: a covering array, chosen greedily and always alike.
std::vector<OpSample> paired_samples(const OpEntry& entry, const OpVariations& variations);

}  // namespace tally::ops
