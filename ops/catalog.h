#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tally/autograd/var.h"
#include "tally/ops/options.h"

namespace tally::ops {

enum class InputKind {
  differentiable,  ///< f32 or f64; backward gives its gradient
  constant,        ///< f32 or f64; no gradient by definition: `no_gradient` says why
  integer,         ///< ids, codes, offsets, masks
};

struct OpInput {
  std::string name;
  std::string shape;  ///< in the field's letters: "[T, D]"
  InputKind kind = InputKind::differentiable;
  bool optional = false;  ///< may be absent: an undefined Var
  std::string doc = {};
  /// Of a constant that outputs depend on: why it has no gradient ("given by the caller, not learned"). Without it the
  /// checks take the declaration for a mistake.
  std::string no_gradient = {};
};

struct OpOption {
  std::string name;
  OptionValue otherwise;  ///< the default; its alternative is the option's type
  std::string doc;
};

struct OpOutput {
  std::string name;
  std::string shape;
};

/// One call of an op on concrete tensors: floating inputs in f64 (the checks convert them to f32 too).
struct OpSample {
  std::string name;            ///< "odd", "empty", "length one", "ties", "extreme", ...
  std::vector<Tensor> inputs;  ///< in the entry's order; undefined for an absent optional one
  OpOptions options = {};
  bool gradient = true;   ///< check the gradient here; false for extreme values
  bool at_kinks = false;  ///< ties and kinks on purpose: any gradient between the slopes to both sides is right
};

/// From one call, samples in which every two of its options and optional inputs meet (paired_samples()).
struct OpVariations {
  OpSample base;  ///< every optional input given; small, of odd sizes
  /// Values beside the default for each option to vary.
  std::vector<std::pair<std::string, std::vector<OptionValue>>> values = {};
};

/// A call that must be refused.
struct OpError {
  std::string name;
  std::vector<Tensor> inputs;
  OpOptions options = {};
  std::string message;  ///< a part of what the error must say
};

/// Everything the tests, `tally gradcheck`, `tally apply`, `tally ops` and `tally bench` need to know of an op.
struct OpEntry {
  std::string name;
  std::string summary;  ///< one sentence; formula where short
  std::vector<OpInput> inputs;
  std::vector<OpOption> options = {};
  std::vector<OpOutput> outputs;
  std::function<std::vector<Var>(std::span<const Var> inputs, const OpOptions& options)> call;
  std::function<std::vector<OpSample>()> samples;
  std::function<std::vector<OpError>()> errors = {};
  /// A large typical call for benchmarks and thread checks; optional.
  std::function<OpSample()> large = {};
  /// Floating-point operations (multiplications and additions) of the matrix products of a forward call, for
  /// benchmarks; absent where there are none.
  std::function<double(const OpSample&)> flops = {};
  /// Has kinks (relu, clamp, max): single elements on a kink are not failures.
  bool kinks = false;
  /// Tolerance of f32 results and gradients against f64, relative to the largest magnitude of the tensor.
  double f32_tolerance = 2e-6;
  /// For a straight-through op: at the base inputs, returns the smooth function whose gradient the backward claims to
  /// be (every stopped value and argmax frozen).
  std::function<std::function<std::vector<Var>(std::span<const Var>)>(std::span<const Tensor> base,
                                                                      const OpOptions& options)>
      surrogate = {};
  /// Calls whose options and optional inputs are combined in pairs; Catalog::add() appends the samples.
  std::function<std::vector<OpVariations>()> variations = {};
  /// What the op refuses together, in the words of sample_coverage.h: {"assignment=soft", "assignments absent"}.
  std::vector<std::pair<std::string, std::string>> apart = {};
  /// The definition as plain loops in double; optional.
  std::function<std::vector<Tensor>(std::span<const Tensor> inputs, const OpOptions& options)> reference = {};
};

/// Ops by name. A program outside the tree makes the standard one, adds its own entries, and gets the same checks.
class Catalog {
 public:
  /// Appends the samples of the entry's variations to its own. Throws ValueError for a name that is there already or an
  /// entry without call, samples or outputs.
  void add(OpEntry entry);
  const std::vector<OpEntry>& entries() const { return entries_; }
  /// Throws ConfigError, with the nearest name, when there is none.
  const OpEntry& find(std::string_view name) const;
  bool contains(std::string_view name) const;

 private:
  std::vector<OpEntry> entries_;
};

/// Every op of tally.
const Catalog& standard_catalog();

/// Standard normal values in f64, for samples.
Tensor sample_normal(const Shape& shape, std::uint64_t stream, double deviation = 1);
/// Integers in [0, bound) as i64, for samples.
Tensor sample_integers(const Shape& shape, std::uint64_t stream, std::int64_t bound);

}  // namespace tally::ops
