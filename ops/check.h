#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tally/autograd/gradient_check.h"
#include "tally/ops/catalog.h"

namespace tally::ops {

/// What an op computes on concrete tensors, and the gradient of each input. The checks, `tally apply` and `tally bench`
/// call ops through this.
struct Evaluation {
  std::vector<Tensor> outputs;
  /// One for each input: absent for one that is not differentiated or that no gradient reaches.
  std::vector<std::optional<Tensor>> gradients;
};

/// Which inputs are differentiated: those of kind `differentiable` that are given.
std::vector<bool> differentiable_inputs(const OpEntry& entry, std::span<const Tensor> inputs);

/// Vars for the inputs: leaves of the current tape where `tracked`, constants elsewhere, undefined where absent.
std::vector<Var> as_vars(std::span<const Tensor> inputs, const std::vector<bool>& tracked);

/// Forward and backward. An undefined cotangent means that no gradient comes from that output.
/// Throws ConfigError when the number of inputs is not the entry's, ShapeError for cotangents of other shapes.
Evaluation evaluate(const OpEntry& entry, std::span<const Tensor> inputs, const OpOptions& options,
                    const std::vector<bool>& tracked, std::span<const Tensor> cotangents);
/// Forward alone, without a tape.
std::vector<Tensor> evaluate(const OpEntry& entry, std::span<const Tensor> inputs, const OpOptions& options);

/// Standard normal cotangents of the outputs' shapes and types; undefined for integer outputs.
std::vector<Tensor> random_cotangents(std::span<const Tensor> outputs, RngKey key);

/// The inputs with floating ones converted; integer and absent ones are kept.
std::vector<Tensor> converted(std::span<const Tensor> inputs, DType dtype);

/// "name" or "name {option=value, ...}".
std::string describe(const OpSample& sample);
std::string describe(const OptionValue& value);

/// The gradient check of one sample.
struct SampleReport {
  std::string sample;                   ///< describe() of it
  std::string skipped;                  ///< why it was not checked; empty when it was
  std::string error;                    ///< of an exception; empty when there was none
  std::vector<std::string> complaints;  ///< about f32 against f64, and inputs wrongly declared constant
  GradientReport gradients;
};

enum class EntryVerdict { pass, fail, inconclusive, skip };

struct EntryReport {
  std::string op;
  std::vector<SampleReport> samples;
  std::string complaint;  ///< about the entry as a whole: undeclared kinks, nothing to compare
  EntryVerdict verdict = EntryVerdict::pass;
};

/// Checks the gradient of every sample of an entry, in f64 (against the surrogate where the entry has one), and forward
/// and backward in f32 against f64 (check_f32()). Exceptions become failures of their sample. Fails also when outputs
/// move with an input that is declared constant and without a reason (check_constants()), when elements lie on kinks
/// that the entry does not declare, and when there is no element to compare although inputs are differentiable. An op
/// without differentiable inputs is skipped. Throws ValueError for tolerances without meaning (check_tolerances()).
EntryReport check_entry(const OpEntry& entry, const GradientCheckOptions& options = {});

/// The check of one sample. Inputs that are not differentiated are listed last, as such.
GradientReport check_sample(const OpEntry& entry, const OpSample& sample, const GradientCheckOptions& options = {});

}  // namespace tally::ops
