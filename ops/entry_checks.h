#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "tally/ops/check.h"
#include "tally/ops/f32_check.h"

/// The contract of an op as checks of its catalog entry, one function for each part. They return complaints: so a test
/// holds them against deliberately broken ops, and a program outside the tree runs them over its own (`tally check`).
namespace tally::ops {

/// Forward in f64 against the entry's reference, where it has one.
Complaints check_reference(const OpEntry& entry, const OpSample& sample);

/// Forward and backward give back all memory.
Complaints check_leaks(const OpEntry& entry, const OpSample& sample);

/// Overwriting any input or output between forward and backward is refused by an AutogradError that names the op, or
/// does not change the gradients.
Complaints check_versions(const OpEntry& entry, const OpSample& sample);

/// Neither forward nor backward writes to inputs or cotangents, and backward reads no memory that the caller may have
/// let go and used for something else.
Complaints check_buffers(const OpEntry& entry, const OpSample& sample);

/// Outputs do not move with an input that is declared constant, unless the entry says why it has no gradient.
Complaints check_constants(const OpEntry& entry, const OpSample& sample);

/// Outputs of constants, or without a tape, are untracked and the same bits; constants get no gradient; each gradient
/// is the same whichever others are asked for.
Complaints check_tracking(const OpEntry& entry, const OpSample& sample);

/// Backward is linear in the cotangents: absent ones act as zeros, zero gives zero, the parts of several outputs add
/// up.
Complaints check_cotangents(const OpEntry& entry, const OpSample& sample);

/// Results and gradients are the same bits where the inputs are results of other ops and the outputs go into others: an
/// input need not be a leaf, and the cotangent that backward takes may be its own, not a copy.
Complaints check_between_ops(const OpEntry& entry, const OpSample& sample);

/// Outputs and gradients in f32 (f64 for an op that refuses it) are the same bits for 1, 2 and 8 threads.
Complaints check_threads(const OpEntry& entry, const OpSample& sample);

/// Views (transposed storage, an offset into a larger tensor) give the same bits as contiguous inputs.
Complaints check_views(const OpEntry& entry, const OpSample& sample);

/// The call is refused by a tally::Error that says what the entry promises.
Complaints check_error(const OpEntry& entry, const OpError& error);

/// Names, shapes, docs and options are complete, and the samples exercise every option and optional input.
Complaints check_documentation(const OpEntry& entry);

/// Every two options, and every absence of an optional input with every option, meet in a sample with a gradient
/// (sample_coverage.h); what is declared apart is refused by a call among the entry's errors.
Complaints check_coverage(const OpEntry& entry);

/// A gradient 0.1 % too large is found in every differentiable input.
Complaints check_injected_bug(const OpEntry& entry);

/// The checks that look at one sample, with the names that `tally check` prints.
struct SampleCheck {
  const char* name;
  Complaints (*check)(const OpEntry& entry, const OpSample& sample);
  bool every_target = false;    ///< repeated on each SIMD target
  bool needs_gradient = false;  ///< only where the sample's gradient is checked
};
std::span<const SampleCheck> sample_checks();

struct Finding {
  std::string check, sample, complaint;  ///< no sample: of the entry as a whole
};
struct EntryFindings {
  std::string op;
  std::int64_t samples = 0, checks = 0;  ///< checks: runs of a check on a sample or the entry
  std::vector<Finding> findings;         ///< what is wrong with the op
  std::vector<Finding> gaps;             ///< what its entry leaves unsaid, and its samples unchecked
  EntryReport gradients;

  bool gradients_failed() const {
    return gradients.verdict != EntryVerdict::pass && gradients.verdict != EntryVerdict::skip;
  }
  bool failed() const { return !findings.empty() || gradients_failed(); }
};

/// Every check of this header, and the gradient check, over an entry. Exceptions become findings.
EntryFindings check_all(const OpEntry& entry, const GradientCheckOptions& options = {});

}  // namespace tally::ops
