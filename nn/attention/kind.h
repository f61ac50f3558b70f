#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tally/core/bytes.h"
#include "tally/core/offsets.h"
#include "tally/nn/module.h"
#include "tally/ops/attention/softmax_attention.h"

// Attentions have two forms: whole sequences at once, and, where the method's state has a fixed size, an event at a
// time. A kind is a module of its own with
//
//   Var operator()(const Var& queries, const Var& source, const Sequence&, const Context&) const;
//   std::string layout() const;          // settings that no tensor shows, for the fingerprints of states
//   bool reads_times() const;            // needs the times of events; false when it is missing
//
// which owns its projections, and sees what its layer sees. With a recurrent form it has too
//
//   struct State { std::size_t heap_bytes() const; void save(std::string& to) const;
//                  void load(ByteReader& bytes, std::int64_t events); };
//   State initial_state() const;
//   Var step(State&, const Var& query, const Var& source, const Event&) const;
//   bool has_state() const;              // where settings decide; true when it is missing

namespace tally::nn {

/// Of what rows are.
struct Sequence {
  Offsets offsets;    ///< [N + 1] where each sequence begins
  Tensor times = {};  ///< f64 [T] when each event was, in the data's unit; undefined where that is not known
};

/// One row of a sequence that is not stored.
struct Event {
  std::int64_t place = 0;  ///< number of events before it
  /// When it was; NaN where that is not known, as in streams of items alone.
  double time = std::numeric_limits<double>::quiet_NaN();
};

/// What a layer asks of its attention, whatever the kind.
struct AttentionSettings {
  std::int64_t width = 0;
  std::int64_t heads = 1;
  ops::AttentionMask mask = ops::AttentionMask::causal;
  std::int64_t max_length = 0;  ///< longest sequence, which linformer and sinkhorn need to know
  double deviation = 0;         ///< of projections' normal initial weights; 0 means Xavier uniform
};

template <class K>
concept AttentionKind = Module<K> &&
    requires(const K& kind, const Var& rows, const Sequence& sequence, const Context& context) {
  { kind(rows, rows, sequence, context) } -> std::convertible_to<Var>;
  { kind.layout() } -> std::convertible_to<std::string>;
};

template <class K>
concept RecurrentAttentionKind = AttentionKind<K> && requires(const K& kind, typename K::State& state, const Var& row) {
  { kind.initial_state() } -> std::same_as<typename K::State>;
  { kind.step(state, row, row, Event{}) } -> std::convertible_to<Var>;
};

/// The state of a kind that keeps sums, in double: a `State` for it.
struct SumsState {
  std::vector<double> sums;

  std::size_t heap_bytes() const { return sums.capacity() * sizeof(double); }
  void save(std::string& to) const { write_values(to, std::span<const double>(sums)); }
  void load(ByteReader& bytes, std::int64_t) { bytes.read(std::span(sums)); }
};

}  // namespace tally::nn
