#pragma once

#include "tally/ops/kernels/dispatcher_plan.h"

namespace tally::kernels {

/// Rows between two checkpoints of a sequence, at most.
inline constexpr std::int64_t kCheckpointRows = 512;

/// Numbers of a checkpoint: the sums of all experts, and what they are relative to.
template <class T>
std::int64_t checkpoint_size(const DispatcherPlan<T>& plan) {
  return plan.heads * plan.experts * (plan.value_width + 3);
}
/// Checkpoints of a call: one for every kCheckpointRows rows of a sequence that others follow.
std::int64_t checkpoint_count(std::span<const std::int64_t> bounds);

/// output [T, heads * o]. Writes checkpoints [checkpoint_count, checkpoint_size] unless they are null. Parallel over
/// sequences.
///
/// A sequence is walked in chunks whose rows meet by matrix products. Experts of earlier chunks are sums relative to a
/// score r that no later row decides, so rows do not depend on what follows by a bit: r is the largest score before the
/// chunk, or its first row's. A chunk ends early where a score is more than kLargestRise above r; weights exp(score -
/// r) then neither overflow nor do sums of earlier rows vanish against them.
template <class T>
void causal_dispatcher_forward(const DispatcherPlan<T>& plan, T* output, double* checkpoints);

/// From forward's checkpoints and the gradient of the output.
template <class T>
void causal_dispatcher_backward(const DispatcherPlan<T>& plan, const double* checkpoints, const T* gradient_output,
                                const DispatcherGradient<T>& to);

}  // namespace tally::kernels
