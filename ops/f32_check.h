#pragma once

#include <string>
#include <vector>

#include "tally/ops/catalog.h"

namespace tally::ops {

/// One sentence for each thing that is wrong, and none for a sound op.
using Complaints = std::vector<std::string>;

/// How far one f32 result of an op lies from f64's on the same (f32) inputs and cotangents.
struct F32Difference {
  std::string what;    ///< "output 'y'", "the gradient of 'x'"
  double largest = 0;  ///< infinite where one is finite and the other is not
  /// The largest magnitude in f64; more where the last bits of the inputs move it farther, and of a gradient that is
  /// zero by cancellation the largest cotangent.
  double scale = 0;
  std::int64_t index = 0;
  double got = 0, expected = 0;

  double relative() const { return largest == 0 ? 0 : largest / scale; }
};

struct F32Report {
  std::vector<F32Difference> differences;
  Complaints complaints;  ///< results of another shape or type, or that exist in one type only
  std::string refused;    ///< what the op said when it was given f32; empty when it took it
};

/// Forward and backward in f32 against f64, on the SIMD target in use. Where a sample's gradient is not to be compared
/// (extreme values) only its being finite is.
F32Report compare_f32(const OpEntry& entry, const OpSample& sample);

/// What a DTypeError says when the op is called with f32; empty when it takes them.
std::string f32_refusal(const OpEntry& entry, const OpSample& sample);

/// The differences beyond the entry's tolerance, relative to each result's own scale. An op that takes no f32 at all
/// draws no complaint.
Complaints check_f32(const OpEntry& entry, const OpSample& sample);

/// The largest relative difference of each result over all samples, on the SIMD target in use.
struct MeasuredTolerance {
  std::string what;
  double relative = 0;
};
std::vector<MeasuredTolerance> measured_tolerances(const OpEntry& entry);

/// `got` against `expected`: shape, kind of type, and elements to `rtol` of the largest magnitude and at least
/// rtol * `least_scale`. Integers must be equal.
Complaints compare_tensors(const std::string& what, const Tensor& got, const Tensor& expected, double rtol,
                           double least_scale = 1);

/// Outputs in f64 against a naive reference's, to `rtol` of the largest magnitude (at least 1).
Complaints compare_with_reference(const std::vector<Tensor>& outputs, const std::vector<Tensor>& expected,
                                  double rtol = 1e-11);

}  // namespace tally::ops
