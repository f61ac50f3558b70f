#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/dropout.h"
#include "tally/ops/norms/norm_kind.h"

// What layer_norm, rms_norm and residual_dropout_norm share: each of them is a contract, a rule's name and a catalog
// entry around this.

namespace tally::ops::detail {

/// The inputs of a norm; undefined for absent ones.
struct NormInputs {
  const Var& x;
  const Var& residual;
  const Var& weight;
  const Var& bias;
};

/// Which input of the node is which; -1 for those the op does not have.
struct NormPlaces {
  int x = 0, residual = -1, weight = 1, bias = -1;
};

/// What backward needs of a norm.
struct SavedNorm {
  NormKind kind = NormKind::layer;
  DropoutOptions dropout;
  Saved sum, statistics, weight;

  void backward(BackwardContext& g, const NormPlaces& places) const;
};

struct NormResult {
  Tensor normalized;
  Tensor sum;  ///< undefined without a residual
  SavedNorm saved;
};

/// Checks the inputs in the name of `op` and computes. `dropout` applies to x and needs a residual.
NormResult normalize(std::string_view op, NormKind kind, const NormInputs& in, double epsilon,
                     const DropoutOptions& dropout);

}  // namespace tally::ops::detail
