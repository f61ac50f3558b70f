#pragma once

#include "tally/nn/module.h"
#include "tally/ops/attention/histogram_attention.h"
#include "tally/ops/attention/histogram_state.h"
#include "tally/ops/quantization/vector_quantization.h"

namespace tally::nn {

struct HistogramSelfAttentionOptions {
  std::int64_t codebooks = 0;
  std::int64_t width = 0;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  ops::CodewordAssignment assignment = ops::CodewordAssignment::hard;
  std::int64_t window = 0;   ///< tally only the last so many rows; 0 for all
  double decay = 0;          ///< lambda >= 0: a row k places back counts e^(-lambda k)
  bool learn_decay = false;  ///< train log lambda, from `decay` above 0
  /// Of soft assignments: a row's query is its assignment's average of projected codewords, as the paper's text has it;
  /// false: the projection of its most similar codeword, as the released code has it. Causal and without a window.
  bool soft_query = false;
};

/// What histogram attention needs of the parameters alone.
struct HistogramTables {
  Var inner;   ///< [B, W, W] inner products of projected codewords: query, key
  Var values;  ///< [B * W, D] projected codewords
  static constexpr void fields(auto& self, auto&& visit) {
    visit("inner", self.inner);
    visit("values", self.values);
  }
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
  bool soft_query = false;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("key", self.key);
    visit("value", self.value);
    visit("log_decay", self.log_decay);
    visit("mask", self.mask);
    visit("assignment", self.assignment);
    visit("window", self.window);
    visit("decay", self.decay);
    visit("soft_query", self.soft_query);
  }
  /// Throws ValueError for a decay or a window below 0, a decay of 0 where it is to be trained, and for soft queries of
  /// hard assignments, with a window or a bidirectional mask.
  static HistogramSelfAttention make(const HistogramSelfAttentionOptions& options, RngKey key);

  /// Tables for codebooks [B, W, D]: once for a step, or for good when weights no longer change.
  HistogramTables tables(const Var& codebooks) const;
  /// [T, D] for codes [T, B] and the logits of their assignments [T, B, W] (may be absent for inference with hard
  /// assignments). With soft queries, for y = softmax(logits) and H the decayed sum of its rows,
  ///
  ///   o_t = sum_b sum_w a_tb[w] V_b[w] / sum_w a_tb[w]     a_tb[w] = H_tb[w] exp(sum_u y_tb[u] S_b[u, w] / sqrt(D))
  ///
  /// and codes are not read; time O(T B W (W + D)), memory O(T B W).
  Var operator()(const Tensor& codes, const Var& logits, const HistogramTables& tables, const Offsets& offsets) const;
  /// lambda as it stands.
  double current_decay() const;

  /// The recurrent form, of causal attention in f32: a tally of the rows so far. `reader` holds the tables in the form
  /// that a query reads (ops/attention/histogram_state.h).
  ops::HistogramLayout layout(std::int64_t codebooks, std::int64_t codewords) const;
  /// Takes a row, quantized [1, ...]; logits are read where assignments are soft.
  void append(ops::HistogramState& state, const ops::VectorQuantization& row) const;
  /// Takes a row back (ops::HistogramState::remove).
  void remove(ops::HistogramState& state, const ops::VectorQuantization& row) const;
  /// [1, D] what the call above gives for this row, if it is the last that was taken.
  Var attend(const ops::HistogramState& state, const ops::VectorQuantization& row,
             const ops::HistogramReader& reader) const;
};

}  // namespace tally::nn
