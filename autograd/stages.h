#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tally/autograd/tape.h"

namespace tally {

/// What a shard hands on.
struct ShardOutput {
  Var loss = {};               ///< scalar part of the step's loss (a sum over the shard's tokens); may be undefined
  std::vector<Var> rows = {};  ///< tensors whose first dimension runs over the shard's rows, for the batch stage
};

/// One training step as a few stages, walked forward and then backward.
///
/// `prepare` computes what depends on parameters alone (LISA's codeword tables), once, on a tape of its own. `encode`
/// runs for every shard, each on its own tape and one core, with the prepared values as leaves. `finish` computes what
/// needs the whole batch from the shards' rows, laid end to end in shard order. The loss is the sum of the shards'
/// losses and of `finish`'s. Gradients are folded in shard order: neither threads nor their timing change a bit of the
/// result.
struct Stages {
  std::function<std::vector<Var>()> prepare = {};  ///< optional
  std::int64_t shards = 0;
  std::function<ShardOutput(std::int64_t shard, std::span<const Var> prepared)> encode;
  std::function<bool(std::int64_t shard)> wide = {};  ///< optional: such a shard runs alone, with parallel ops inside
  std::function<Var(std::span<const Var> rows, std::span<const Var> prepared)> finish = {};  ///< optional
};

struct StageResult {
  double loss = 0;
  Gradients gradients;
};

/// Runs the stages. `configure`, when given, sees every tape before it records (to trace non-finite values, for
/// example). Throws AutogradError where a tape records already.
StageResult run_stages(const Stages& stages, const std::function<void(Tape&)>& configure = {});

}  // namespace tally
