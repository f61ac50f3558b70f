#pragma once

#include "tally/nn/module.h"
#include "tally/ops/histogram_attention.h"

namespace tally::nn {

struct HistogramSelfAttentionOptions {
  std::int64_t codebooks = 0;
  std::int64_t width = 0;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  ops::CodewordAssignment assignment = ops::CodewordAssignment::hard;
  std::int64_t window = 0;   ///< tally only the last so many rows; 0 for all
  double decay = 0;          ///< lambda >= 0: a row k places back counts e^(-lambda k)
  bool learn_decay = false;  ///< train log lambda, from `decay` above 0
};

/// What histogram attention needs of the parameters alone.
struct HistogramTables {
  Var inner;   ///< [B, W, W] inner products of projected codewords: query, key
  Var values;  ///< [B * W, D] projected codewords
};

/// LISA's self-attention (arXiv 2105.14068): codebooks C^b are projected by matrices of their own, C^b Q^b, C^b K^b,
/// C^b V^b, without biases and without an output projection; the codebooks' outputs are summed.
struct HistogramSelfAttention {
  Parameter query, key, value;  ///< [B, D, D]
  Parameter log_decay;          ///< [1]; absent unless it is trained
  ops::AttentionMask mask = ops::AttentionMask::causal;
  ops::CodewordAssignment assignment = ops::CodewordAssignment::hard;
  std::int64_t window = 0;
  double decay = 0;  ///< where it is not trained
  static void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("key", self.key);
    visit("value", self.value);
    visit("log_decay", self.log_decay);
    visit("mask", self.mask);
    visit("assignment", self.assignment);
    visit("window", self.window);
    visit("decay", self.decay);
  }
  /// Throws ValueError for a decay below 0, or of 0 where it is to be trained.
  static HistogramSelfAttention make(const HistogramSelfAttentionOptions& options, RngKey key);

  /// Tables for codebooks [B, W, D]: once for a step, or for good when weights no longer change.
  HistogramTables tables(const Var& codebooks) const;
  /// [T, D] for codes [T, B] and the logits of their assignments [T, B, W] (may be absent for inference with hard
  /// assignments).
  Var operator()(const Tensor& codes, const Var& logits, const HistogramTables& tables, const Offsets& offsets) const;
  /// lambda as it stands.
  double current_decay() const;
};

}  // namespace tally::nn
