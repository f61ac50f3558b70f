#pragma once

#include <memory>
#include <string>

#include "tally/core/options/options.h"
#include "tally/core/words.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"
#include "tally/ops/attention/dispatcher_state.h"

namespace tally::nn {

/// Which of the gathered experts' columns a head reads.
enum class ExpertHeads {
  mixed,  ///< all: W_K2 and W_V2 are [width, width], as in the paper
  own,    ///< those that it gathered itself: a matrix for each head, which is cheaper in the causal form
};
constexpr auto words(ExpertHeads) {
  using W = Word<ExpertHeads>;
  return std::array{W{"mixed", ExpertHeads::mixed}, W{"own", ExpertHeads::own}};
}

/// What the paper leaves open: docs/elastic.md has the reasons for the defaults.
struct DispatcherOptions {
  std::int64_t experts = 32;
  double deviation = 1;
  ExpertHeads heads = ExpertHeads::mixed;
  bool own_experts = true;  ///< false: whoever holds the layer gives it experts
  static void keys(auto& o, auto&& key) {
    key("experts", o.experts, at_least(1), "experts that gather a history and are read by its rows");
    key("experts_init", o.deviation, above(0), "deviation of the experts' normal initial values");
    key("expert_heads", o.heads, "`mixed`: a head reads what all heads gathered; `own`: what it gathered itself");
  }
};

/// Dispatcher attention (ELASTIC, arXiv 2408.09380; docs/elastic.md) as a kind: k experts gather the source's rows, and
/// the queries read the experts. Bidirectional by ops::dispatcher_attention, causal by
/// ops::causal_dispatcher_attention, which has a recurrent form too.
struct DispatcherKind {
  Linear expert_query;     ///< W_Q1 of the experts
  Linear key, value;       ///< W_K1, W_V1 of the source's rows
  Linear query;            ///< W_Q2 of the queries
  Parameter expert_key;    ///< W_K2 of what was gathered: [width, width], or [heads, d, d] of a head's own
  Parameter expert_value;  ///< W_V2, as W_K2
  Linear output;
  Parameter experts;  ///< [k, width] of all sequences; absent where they are given
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("expert_query", self.expert_query);
    visit("key", self.key);
    visit("value", self.value);
    visit("query", self.query);
    visit("expert_key", self.expert_key);
    visit("expert_value", self.expert_value);
    visit("output", self.output);
    visit("experts", self.experts);
    visit("heads", self.heads);
    visit("mask", self.mask);
  }
  static DispatcherKind make(const DispatcherOptions& options, const AttentionSettings& settings, RngKey key);

  /// With its own experts. Throws ValueError when it has none.
  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const;

  struct Dispatched {
    Var output;   ///< [T, width]
    Var experts;  ///< [N, k, width] what they gathered; absent in the causal form, where each row has its own
  };
  /// With experts [k, width] of all sequences, or [N, k, width].
  Dispatched dispatch(const Var& queries, const Var& source, const Var& given, const Sequence& sequence) const;

  struct LastRead {
    Tensor shares;    ///< f64 [N, heads, k] of each expert in what a head reads: they sum to 1
    Tensor gathered;  ///< [N, k, width]
  };
  /// What the last row of each sequence reads, which sees all rows with either mask. Throws ValueError for a sequence
  /// without rows.
  LastRead last_read(const Var& queries, const Var& source, const Var& given, const Sequence& sequence) const;

  std::string layout() const;

  /// What the experts gathered, in double: its size does not depend on the history's length.
  struct State {
    ops::DispatcherState gathered;
    std::shared_ptr<const ops::DispatcherReader> reader;  ///< shared by all states of a kind; not counted

    std::size_t heap_bytes() const;
    void save(std::string& to) const;
    void load(ByteReader& bytes, std::int64_t events);
  };
  bool has_state() const { return mask == ops::AttentionMask::causal; }
  State initial_state() const;
  Var step(State& state, const Var& queries, const Var& source, const Event& event) const;

 private:
  ops::DispatcherInputs inputs(const Var& queries, const Var& source, const Var& given) const;
  const Parameter& own_experts() const;
};

}  // namespace tally::nn
