#pragma once

#include "tally/core/offsets.h"
#include "tally/nn/module.h"
#include "tally/ops/elementwise/dropout.h"
#include "tally/ops/tensor/linear.h"

namespace tally::nn {

struct LinearOptions {
  std::int64_t in = 0;
  std::int64_t out = 0;
  bool bias = true;
  double deviation = 0;  ///< of normal initial weights; 0 means Xavier uniform. Biases begin at zero.
};

/// y = activation(x W^T + b) for x [..., in], weight [out, in].
struct Linear {
  Parameter weight, bias;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("bias", self.bias);
  }
  static Linear make(const LinearOptions& options, RngKey key);
  Var operator()(const Var& x, ops::Activation activation = ops::Activation::none) const;
};

struct EmbeddingOptions {
  std::int64_t count = 0;
  std::int64_t width = 0;
  double deviation = 0.02;  ///< of normal initial rows
};

/// Rows of a table [count, width] by id; its gradient is sparse.
struct Embedding {
  Parameter table;
  static constexpr void fields(auto& self, auto&& visit) { visit("table", self.table); }
  static Embedding make(const EmbeddingOptions& options, RngKey key);
  /// [ids..., width], each row times `scale`.
  Var operator()(const Tensor& ids, double scale = 1) const;
};

struct NormOptions {
  std::int64_t width = 0;
  double epsilon = 1e-5;
};

/// Ba et al., arXiv 1607.06450: zero mean and unit variance over the last dimension, then weight and bias.
struct LayerNorm {
  Parameter weight, bias;
  double epsilon = 1e-5;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("bias", self.bias);
    visit("epsilon", self.epsilon);
  }
  static LayerNorm make(const NormOptions& options);
  Var operator()(const Var& x) const;
};

/// Zhang & Sennrich, arXiv 1910.07467: unit root mean square over the last dimension, then weight.
struct RmsNorm {
  Parameter weight;
  double epsilon = 1e-5;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("epsilon", self.epsilon);
  }
  static RmsNorm make(const NormOptions& options);
  Var operator()(const Var& x) const;
};

struct BatchNormOptions {
  std::int64_t width = 0;
  double epsilon = 1e-5;
  double momentum = 0.1;  ///< share of a step's statistics in the running ones
};

/// Ioffe & Szegedy, arXiv 1502.03167, as torch.nn.BatchNorm1d: in training columns of x [rows, width] get zero mean and
/// unit variance over the rows of the call, else by the running statistics; then weight and bias.
///
/// Results in training depend on which rows come together, so on shards (and a packed row of a long sequence counts
/// like any other). Each shard has statistics of its own; the running ones take those of a step's first shard, as
/// DistributedDataParallel's do, with the unbiased variance. One call a step.
struct BatchNorm {
  Parameter weight, bias;
  Buffer running_mean, running_variance;
  double epsilon = 1e-5;
  double momentum = 0.1;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("weight", self.weight);
    visit("bias", self.bias);
    visit("running_mean", self.running_mean);
    visit("running_variance", self.running_variance);
    visit("epsilon", self.epsilon);
    visit("momentum", self.momentum);
  }
  static BatchNorm make(const BatchNormOptions& options);
  /// Throws ShapeError unless x is [rows, width], of at least two rows in training.
  Var operator()(const Var& x, const Context& context) const;
};

/// Zeroes elements with probability `rate` in training and scales the others by 1 / (1 - rate). The mask is a function
/// of the context's key and the element's global row and column.
struct Dropout {
  double rate = 0;
  static constexpr void fields(auto& self, auto&& visit) { visit("rate", self.rate); }
  Var operator()(const Var& x, const Context& context) const;
  /// For fused ops that drop out inside: the rate is 0 outside training.
  ops::DropoutOptions options(const Context& context) const;
};

/// Stochastic depth (Huang et al., arXiv 1603.09382): in training a branch is left out of the whole of a sequence with
/// this probability, and else multiplied by 1 / (1 - rate). Drawn at the sequence's first row within the batch, so that
/// it does not depend on sharding.
struct DropPath {
  double rate = 0;
  static constexpr void fields(auto& self, auto&& visit) { visit("rate", self.rate); }
  /// x [T, D], of sequences that begin at `offsets`. Throws ValueError for a rate outside [0, 1).
  Var operator()(const Var& x, const Offsets& offsets, const Context& context) const;
};

}  // namespace tally::nn
