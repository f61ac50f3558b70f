#pragma once

#include <string>
#include <vector>

#include "tally/ops/catalog.h"

/// The checks that every catalog entry must pass, one function for each. They return complaints, one sentence each, and
/// none for a sound op: so a test can hold them against deliberately broken ops, and a program outside the tree can run
/// them over its own. The gradient check is part of the library: tally/ops/check.h.
namespace tally::testing {

using Complaints = std::vector<std::string>;

/// Outputs in f64 against a naive reference's, to `rtol` of the largest magnitude (at least 1).
Complaints compare_with_reference(const std::vector<Tensor>& outputs, const std::vector<Tensor>& expected,
                                  double rtol = 1e-11);

/// f32 outputs and gradients against f64's on the same (f32) inputs, on the SIMD target in use.
Complaints check_f32(const ops::OpEntry& entry, const ops::OpSample& sample);

/// Forward and backward give back all memory.
Complaints check_leaks(const ops::OpEntry& entry, const ops::OpSample& sample);

/// Overwriting any input or output between forward and backward is refused by an AutogradError that names the op, or
/// does not change the gradients.
Complaints check_versions(const ops::OpEntry& entry, const ops::OpSample& sample);

/// Outputs of constants, or without a tape, are untracked; constants get no gradient; each gradient is the same whether
/// or not the others are asked for.
Complaints check_tracking(const ops::OpEntry& entry, const ops::OpSample& sample);

/// Backward is linear in the cotangents: absent ones act as zeros, zero gives zero, the parts of several outputs add
/// up.
Complaints check_cotangents(const ops::OpEntry& entry, const ops::OpSample& sample);

/// Outputs and gradients in f32 are the same bits for 1, 2 and 8 threads.
Complaints check_threads(const ops::OpEntry& entry, const ops::OpSample& sample);

/// Views (transposed storage, an offset into a larger tensor) give the same bits as contiguous inputs.
Complaints check_views(const ops::OpEntry& entry, const ops::OpSample& sample);

/// The call is refused by a tally::Error that says what the entry promises.
Complaints check_error(const ops::OpEntry& entry, const ops::OpError& error);

/// Names, shapes, docs and options are complete, and the samples exercise every option and optional input.
Complaints check_documentation(const ops::OpEntry& entry);

}  // namespace tally::testing
