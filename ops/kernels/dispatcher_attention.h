#pragma once

#include "tally/ops/kernels/dispatcher_plan.h"

namespace tally::kernels {

/// output [T, heads * o], experts [N, k, heads * e], and the log-sum-exps of both softmaxes: read [T, heads], gathered
/// [N, k, heads]. Parallel over sequences; inside a long one, over its segments and heads.
template <class T>
void dispatcher_forward(const DispatcherPlan<T>& plan, T* output, T* experts, double* read, double* gathered);

/// What backward reads beside the inputs: forward's results, and the gradients of the outputs.
template <class T>
struct DispatcherBackward {
  const T *output = nullptr, *experts = nullptr;
  const double *read = nullptr, *gathered = nullptr;
  const T *gradient_output = nullptr, *gradient_experts = nullptr;
};
template <class T>
void dispatcher_backward(const DispatcherPlan<T>& plan, const DispatcherBackward<T>& data,
                         const DispatcherGradient<T>& to);

}  // namespace tally::kernels
