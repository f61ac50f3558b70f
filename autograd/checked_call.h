#pragma once

#include <optional>
#include <vector>

#include "tally/autograd/gradient_check.h"
#include "tally/autograd/numeric_derivative.h"

namespace tally::detail {

/// A function under a gradient check, evaluated at its base point: outputs, random cotangents, the gradients that
/// backward gives, and how <cotangents, outputs> changes as leaves move.
class CheckedCall {
 public:
  CheckedCall(const CheckedFunction& f, const GradientCheckOptions& options);

  const std::vector<Tensor>& outputs() const { return outputs_; }
  /// Is there nothing to differentiate?
  bool without_outputs() const { return base_.empty(); }
  bool repeatable() const { return repeatable_; }          ///< forward gave the same bits again
  bool surrogate_fits() const { return surrogate_fits_; }  ///< it has the function's value at the base point

  /// What backward gave a leaf, dense; none when no gradient reached it. `again` of a second run. Throws AutogradError
  /// for a gradient of another shape or type.
  std::optional<Tensor> gradient_of(const CheckedLeaf& leaf, bool again = false) const;
  /// <cotangents, outputs now - outputs at the base point>, difference first: what does not move does not blur it.
  Change change() const;
  /// Changes of <cotangents, outputs> up to about this may not move a single output by a bit.
  double resolution() const { return resolution_; }

 private:
  void check_surrogate_value(const GradientCheckOptions& options);

  CheckedFunction numeric_function_;
  std::vector<Tensor> outputs_, base_, cotangents_;
  Gradients analytic_, again_;
  double resolution_ = 0;
  bool repeatable_ = true, surrogate_fits_ = true;
};

}  // namespace tally::detail
