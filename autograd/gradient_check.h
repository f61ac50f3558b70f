#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/random.h"

namespace tally {

/// A leaf whose gradient is checked. `value` shares its storage with the tensor that the function reads (a parameter's,
/// or an input's): the check moves its elements and puts them back.
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
  double kink_fraction = 0.05;     ///< more than one element, and more than this share, at kinks fails the leaf
  /// Smooth stand-in for a straight-through function, of the same value at the base point: its numeric derivative is
  /// what the analytic gradient of `f` is compared with.
  CheckedFunction surrogate = {};
  /// Multiplies the analytic gradient, to see the check fail.
  double injected_bug = 1;
};

enum class GradientVerdict {
  ok,
  fail,
  kink,                ///< a pass, but single elements lie on a kink
  noise,               ///< the numeric derivative's own error exceeds the tolerance: inconclusive, not a pass
  not_differentiable,  ///< there is nothing to check
};
/// "OK", "FAIL", "KINK", "NOISE", "NODIFF".
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
  double numeric_error = 0;           ///< estimate of the numeric derivative's own error, at the worst element
  double cosine = 1, norm_ratio = 1;  ///< of the analytic and the numeric gradient over the checked elements
  bool deterministic = true;          ///< a second backward gave the same bits
  GradientVerdict verdict = GradientVerdict::ok;
  std::vector<ElementError> worst;  ///< up to five, worst first
  std::string hint;                 ///< the pattern recognised: a sign, a missing factor, ...
};

struct GradientReport {
  std::vector<LeafReport> leaves;
  bool failed() const;
  bool inconclusive() const;  ///< nothing failed, but a derivative could not be trusted
  bool passed() const;        ///< neither of the two
};

/// Compares the backward of `f` with numeric derivatives in f64, element by element: Richardson extrapolation and
/// central difference, whichever has the smaller error estimate (numeric_derivative.h). Elements where the one-sided
/// slopes disagree are kinks: counted, and an analytic value between the slopes is accepted. A leaf that no gradient
/// reaches has gradient zero. Also checks that value and backward are repeatable bit for bit. Throws DTypeError for
/// leaves or outputs that are not f64, ShapeError for a leaf that is not contiguous or outputs whose shape depends on
/// the values.
GradientReport check_gradients(const CheckedFunction& f, const std::vector<CheckedLeaf>& leaves,
                               const GradientCheckOptions& options = {});

}  // namespace tally
