#pragma once

#include "tally/autograd/tape.h"

// What the backward passes of a memory's ops share.

namespace tally::kernels {

struct BagPlan;
struct ProductKeyPlan;

}  // namespace tally::kernels

namespace tally::ops::detail {

/// Gradient of a table by its rows, from that of weighted sums of them: the weighted cotangents of all places are never
/// laid out. indices i64 and weights of plan.bags * plan.size elements.
RowGrad bag_gradient(const kernels::BagPlan& plan, const Tensor& indices, const Tensor& weights, const Tensor& gradient,
                     const Shape& table);

/// Gives the gradients of queries and keys, inputs 0 and 1, from that of scores.
void give_product_keys(BackwardContext& g, const kernels::ProductKeyPlan& plan, const Tensor& queries,
                       const Tensor& keys, const Tensor& slots, const Tensor& gradient);

}  // namespace tally::ops::detail
