#pragma once

#include <functional>
#include <span>

#include "tally/autograd/tape.h"

namespace tally {

/// Computes `f(inputs)` and keeps only the inputs; backward runs `f` again on a tape of its own (Chen et al., "Training
/// deep nets with sublinear memory cost", arXiv 1604.06174). Trades one more forward for the memory of everything
/// inside.
///
/// `f` must compute the same when called again (random draws are keyed, so dropout does) and must take what varies
/// through `inputs`: a Var of the outer tape used inside any other way is an AutogradError in backward. Parameters may
/// be used freely.
Var checkpoint(std::function<Var(std::span<const Var>)> f, std::span<const Var> inputs);

}  // namespace tally
