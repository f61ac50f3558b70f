#pragma once

#include <array>
#include <string_view>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/dispatcher_attention.h"
#include "tally/ops/catalog.h"

// What the two dispatcher attentions share: the check of a call, and what their catalog entries say and try.

namespace tally::kernels {

template <class T>
struct DispatcherPlan;
template <class T>
struct DispatcherGradient;

}  // namespace tally::kernels

namespace tally::ops::detail {

inline constexpr int kDispatcherInputs = 6;

/// A call that passed its checks: inputs in the order of DispatcherInputs, dense in their rows.
struct DispatcherCall {
  std::array<Tensor, kDispatcherInputs> inputs;
  Offsets offsets;
  std::int64_t heads = 1;
  double scale = 0;

  std::int64_t rows() const { return inputs[1].dim(0); }
  std::int64_t experts() const { return inputs[0].dim(-2); }
  std::int64_t expert_columns() const { return inputs[2].dim(1); }
  std::int64_t output_columns() const { return inputs[5].dim(-1) * (inputs[5].rank() == 3 ? heads : 1); }
  /// Points into the inputs and offsets.
  template <class T>
  kernels::DispatcherPlan<T> plan() const;
};

/// Throws what dispatcher_attention() says it throws, in the name of `op`.
DispatcherCall check_dispatcher(std::string_view op, const DispatcherInputs& in, const Offsets& offsets,
                                const DispatcherOptions& options);

/// What a rule keeps of a call.
class SavedDispatcherCall {
 public:
  explicit SavedDispatcherCall(const DispatcherCall& call);
  /// The call, unless something of it was overwritten.
  DispatcherCall get() const;

 private:
  std::array<Saved, kDispatcherInputs> inputs_;
  Offsets offsets_;
  Saved bounds_;
  std::int64_t heads_;
  double scale_;
};

/// Gradients of the inputs that are wanted, to be filled by a kernel and given.
class DispatcherGradients {
 public:
  DispatcherGradients(const BackwardContext& g, const DispatcherCall& call, DType dtype);
  template <class T>
  kernels::DispatcherGradient<T> pointers();
  void give(BackwardContext& g);

 private:
  std::array<Tensor, kDispatcherInputs> gradients_;
};

/// The entry of a dispatcher attention, but for its outputs and call.
OpEntry dispatcher_entry(std::string name, std::string summary);
/// Inputs and options of a catalog call.
DispatcherInputs dispatcher_inputs(std::span<const Var> in);
DispatcherOptions dispatcher_options(const OpOptions& options);

}  // namespace tally::ops::detail
