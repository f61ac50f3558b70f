#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tally/core/options/options.h"
#include "tally/core/words.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/layers.h"
#include "tally/ops/attention/linear_attention.h"
#include "tally/ops/attention/linear_attention_memory.h"
#include "tally/ops/recurrent/convolution_state.h"

namespace tally::nn {

/// What a memory's decay follows.
enum class DecayBy {
  none,       ///< nothing decays
  retention,  ///< constants of the heads: RetNet's
  slopes,     ///< constants of the heads: ALiBi's slopes
  row,        ///< the row: one number a head
  channel,    ///< the row: one number a channel of the keys
  time,       ///< learned numbers of the heads, and the time since the event before
};

/// What stands between a memory and the output projection.
enum class OutputGate { none, sigmoid, silu };

/// Parts of a layer around ops::linear_attention. The kinds of the table are settings of these (linear_memory.cpp).
struct LinearMemoryParts {
  ops::UpdateRule rule = ops::UpdateRule::linear;
  DecayBy decay = DecayBy::none;
  bool rotary = false;  ///< queries and keys turn with their place
  bool silu = false;    ///< activation of queries and keys, and of values where there is a convolution
  bool unit = false;    ///< queries and keys have length 1, head by head
  bool gain = false;    ///< sigmoid of the row, one a head; else 1
  OutputGate gate = OutputGate::none;
  std::int64_t taps = 0;    ///< rows that a short convolution of queries, keys and values mixes; 0 for none
  double time_unit = 1;     ///< of DecayBy::time: times count in such units
  bool time_decays = true;  ///< of DecayBy::time: false leaves the events' decay alone
};

struct GatedDeltaOptions {
  std::int64_t taps = 4;
  static void keys(auto& o, auto&& key) {
    key("short_conv", o.taps, at_least(0), "rows that a convolution of queries, keys and values mixes; 0: none");
  }
};

struct TimeDecayOptions {
  double unit = 86400;
  bool by_time = true;
  static void keys(auto& o, auto&& key) {
    key("time_unit", o.unit, above(0), "time, in the data's unit, by which gaps between events are measured");
    key("decay_by", o.by_time, one_of({"events", "events_and_time"}),
        "whether a memory decays with each event alone, or with the time between events too");
  }
};

/// Linear attention without a denominator, by an update rule (ops/attention/linear_attention.h), as a layer: queries,
/// keys and values of the rows, a memory for each head, an RMS norm of what each head reads, a gate, and an output
/// projection. Time and memory are linear in the rows, and events take constant time.
///
/// `retnet` (Sun et al., arXiv 2307.08621): constant decays 1 - 2^(-5 - h), rotary places, gate silu.
/// `lightning` (Qin et al., arXiv 2401.04658): silu of queries and keys, constant decays e^(-8 (h + 1) / heads), gate
///   sigmoid. The slopes are ALiBi's, as in the released code; there they shrink layer by layer, here all layers have
///   the first one's.
/// `gla` (Yang et al., arXiv 2312.06635): a decay for each channel of the keys, sigmoid(W_2 W_1 x + b)^(1 / 16) with
///   16 columns between, gate silu.
/// `deltanet` (Yang et al., arXiv 2406.06484): the delta rule with keys of length 1, gain sigmoid(W x), a short
///   convolution with silu before.
/// `gated_deltanet` (arXiv 2412.06464): the same, decayed by e^(-exp(A) softplus(W x + b)) for each head, gate silu.
/// `time_decay`: silu of queries and keys, decays e^(-softplus(r_h) - softplus(s_h) log(1 + gap / unit)) with the gap
///   since the event before, gate silu: what newer work on long histories (FuXi-Linear, arXiv 2602.23671) gains by,
///   in its plainest form. It needs the times of events.
struct LinearMemoryKind {
  Linear query, key, value, output;
  Linear decay, decay_inner;  ///< of the row; the inner one for channels alone
  Parameter decay_rate;       ///< [heads]: log of the rate of DecayBy::row; of an event for DecayBy::time
  Parameter time_rate;        ///< [heads] of DecayBy::time
  Linear gain, gate;
  RmsNorm norm;                                ///< [width / heads]
  Parameter query_taps, key_taps, value_taps;  ///< [width, taps] of the short convolution
  std::int64_t heads = 1;
  LinearMemoryParts parts = {};
  static constexpr void fields(auto& self, auto&& visit) {
    visit("query", self.query);
    visit("key", self.key);
    visit("value", self.value);
    visit("output", self.output);
    visit("decay", self.decay);
    visit("decay_inner", self.decay_inner);
    visit("decay_rate", self.decay_rate);
    visit("time_rate", self.time_rate);
    visit("gain", self.gain);
    visit("gate", self.gate);
    visit("norm", self.norm);
    visit("query_taps", self.query_taps);
    visit("key_taps", self.key_taps);
    visit("value_taps", self.value_taps);
    visit("heads", self.heads);
    visit("parts", self.parts);
  }
  /// Throws ValueError for a bidirectional mask, and for an odd width of a head that turns.
  static LinearMemoryKind make(const LinearMemoryParts& parts, const AttentionSettings& settings, RngKey key);

  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const;
  std::string layout() const;
  bool reads_times() const { return parts.decay == DecayBy::time && parts.time_decays; }

  /// The memory in double, and the last rows of the short convolution: their size does not depend on the history.
  struct State {
    ops::LinearAttentionMemory memory;
    std::vector<ops::ConvolutionState> recent;  ///< of queries, keys and values, or none
    double time = 0;                            ///< of the latest event; 0 before the first
    std::shared_ptr<const std::vector<ops::ConvolutionReader>> convolutions;  ///< shared by all states; not counted

    std::size_t heap_bytes() const;
    void save(std::string& to) const;
    void load(ByteReader& bytes, std::int64_t events);
  };
  State initial_state() const;
  Var step(State& state, const Var& queries, const Var& source, const Event& event) const;

 private:
  /// Queries or keys as the memory takes them, but for their turns.
  Var features(const Var& projected) const;
  /// [heads], [T, heads] or [T, heads * d]; undefined where nothing decays. gaps [T, 1] of DecayBy::time.
  Var log_decays(const Var& source, const Var& gaps) const;
  /// log(1 + gap / unit) [T, 1] of each event to the one before it; 0 for first ones.
  Var gaps(const Sequence& sequence, DType dtype) const;
  Var ended(const Var& read, const Var& queries) const;
  ops::LinearAttentionOptions options() const;
};

/// Settings of the kinds above.
LinearMemoryParts retnet_parts();
LinearMemoryParts lightning_parts();
LinearMemoryParts gla_parts();
LinearMemoryParts deltanet_parts(const GatedDeltaOptions& options);
LinearMemoryParts gated_deltanet_parts(const GatedDeltaOptions& options);
LinearMemoryParts time_decay_parts(const TimeDecayOptions& options);

}  // namespace tally::nn
