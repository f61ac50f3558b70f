#pragma once

#include <span>
#include <string>
#include <vector>

#include "tally/core/bytes.h"
#include "tally/recsys/models/item_scorer.h"
#include "tally/recsys/models/sasrec.h"

namespace tally::recsys {

/// SASRec one event at a time, for comparison: the state is the last `window` items, and a hidden row reads all of them
/// again. It gives what SasRec::encode() gives for a history cut to the window, at any length.
class SasRecRecurrence {
 public:
  static constexpr std::uint32_t kStateVersion = 2;  ///< 1: numbers for words in the layout
  struct State {
    std::vector<std::int32_t> recent;  ///< event i in place i % window, up to the window

    std::size_t heap_bytes() const { return recent.capacity() * sizeof(std::int32_t); }
    void save(std::string& to) const { write_values(to, std::span<const std::int32_t>(recent)); }
  };

  explicit SasRecRecurrence(const SasRec& model);

  std::string layout() const;
  ItemScorer scorer() const { return ItemScorer::of_table(model_.item_table().value()); }
  State initial_state() const { return {}; }
  void append(State& state, std::int64_t events, std::int32_t item) const;
  void hidden(const State& state, std::int64_t events, std::span<float> row) const;
  void merge(State& state, std::int64_t events, const State& earlier, std::int64_t earlier_events) const;
  State load(ByteReader& bytes, std::int64_t events) const;

 private:
  /// Oldest first.
  std::vector<std::int32_t> in_order(const State& state, std::int64_t events) const;

  SasRec model_;
};

}  // namespace tally::recsys
