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
  /// No tolerance may exceed this: a gradient 0.1 % too large would pass.
  static constexpr double kLargestTolerance = 1e-4;

  double rtol = 1e-6;  ///< of an element's own numeric derivative
  double atol = 1e-9;  ///< at most; where the derivative is measured more precisely, its precision takes the place
  double step = 1e-6;  ///< of the central difference, times max(1, |x|)
  double richardson_step = 1e-3;   ///< of the extrapolated one; the estimate with the smaller error is used
  std::int64_t max_elements = 64;  ///< checked per leaf one by one; of more a sample is drawn by the key
  std::int64_t directions = 2;     ///< of each kind, along which all elements move at once
  RngKey key{20210527, 1};         ///< draws cotangents and sampled elements
  double kink_fraction = 0.05;     ///< more than one element, and more than this share, at kinks fails the leaf
  bool at_kinks = false;           ///< the point is one of kinks, ties: any number is right; no directions
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
  double scaled = 0;  ///< |analytic - numeric| / (rtol |numeric| + the absolute tolerance here)
};

struct LeafReport {
  std::string name;
  Shape shape;
  std::int64_t checked = 0, total = 0, kinks = 0, noisy = 0;
  double max_absolute = 0, max_scaled = 0;
  double max_relative = 0;            ///< over elements large enough for rtol to decide
  std::int64_t directions = 0;        ///< through all elements, that could be measured
  double max_direction = 0;           ///< the largest scaled error along them
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

/// Throws ValueError for tolerances that are negative, not finite or above kLargestTolerance, and for an atol of 0.
void check_tolerances(const GradientCheckOptions& options);

/// Compares the backward of `f` with numeric derivatives in f64, element by element: Richardson extrapolation and
/// central difference, whichever has the smaller error estimate (numeric_derivative.h). Elements where the one-sided
/// slopes disagree are kinks: counted, and an analytic value between the slopes is accepted. A leaf that no gradient
/// reaches has gradient zero.
///
/// A leaf with more elements than are checked one by one is also moved along random directions through all of them,
/// with steps of equal size and with steps that are larger where the gradient is small; a difference is traced to an
/// element by halving. All leaves together are moved along one more; a row "all inputs at once" tells of a difference
/// that no leaf alone has.
///
/// Also checks that value and backward are repeatable bit for bit. Throws what check_tolerances() throws, DTypeError
/// for leaves or outputs that are not f64, ShapeError for a leaf that is not contiguous or outputs whose shape depends
/// on the values.
GradientReport check_gradients(const CheckedFunction& f, const std::vector<CheckedLeaf>& leaves,
                               const GradientCheckOptions& options = {});

}  // namespace tally
