#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/random.h"

namespace tally {

/// A leaf whose gradient is checked. `value` shares its storage with the tensor that the function reads (a parameter's, or
/// an input's): the check moves its elements and puts them back.
struct CheckedLeaf {
  std::string name;
  Tensor value;  ///< f64
  LeafId id;
};

/// The function under test, evaluated afresh at each call. All outputs are checked at once, against random cotangents.
using CheckedFunction = std::function<std::vector<Var>()>;

struct GradientCheckOptions {
  double rtol = 1e-6;
  double atol = 1e-9;
  double step = 1e-6;              ///< of the central difference, times max(1, |x|)
  double richardson_step = 1e-3;   ///< of the extrapolated one; the estimate with the smaller error is used
  std::int64_t max_elements = 64;  ///< checked per leaf; more are sampled by the key
  RngKey key{20210527, 1};         ///< draws cotangents and sampled elements
  double kink_fraction = 0.05;     ///< more elements at kinks than this share fails the leaf
  /// Smooth stand-in for a straight-through function: what the analytic gradient is compared with (DESIGN, docs/ops.md).
  CheckedFunction surrogate;
  /// Multiplies the analytic gradient, to see the check fail.
  double injected_bug = 1;
};

enum class GradientVerdict { ok, fail, kink, noise, not_differentiable };
const char* name_of(GradientVerdict verdict);

struct ElementError {
  std::int64_t index = 0;
  double analytic = 0, numeric = 0;
  double scaled = 0;  ///< |analytic - numeric| / (atol + rtol |numeric|)
};

struct LeafReport {
  std::string name;
  Shape shape;
  std::int64_t checked = 0, total = 0, kinks = 0, noisy = 0;
  double max_absolute = 0, max_relative = 0, max_scaled = 0;
  double numeric_error = 0;            ///< estimate of the numeric derivative's own error, at the worst element
  double cosine = 1, norm_ratio = 1;   ///< of the analytic and the numeric gradient over the checked elements
  bool deterministic = true;           ///< a second backward gave the same bits
  GradientVerdict verdict = GradientVerdict::ok;
  std::vector<ElementError> worst;     ///< up to five, worst first
  std::string hint;                    ///< the pattern recognised: a sign, a missing factor, ...
};

struct GradientReport {
  std::vector<LeafReport> leaves;
  bool passed() const;
  bool inconclusive() const;  ///< nothing failed, but a derivative could not be trusted
};

/// Compares the backward of `f` with numeric derivatives in f64, element by element: central difference and Richardson
/// extrapolation, whichever has the smaller error estimate; elements where the one-sided slopes disagree are kinks and
/// counted. Also checks that backward is repeatable. Throws DTypeError for leaves that are not f64.
GradientReport check_gradients(const CheckedFunction& f, const std::vector<CheckedLeaf>& leaves,
                               const GradientCheckOptions& options = {});

}  // namespace tally
