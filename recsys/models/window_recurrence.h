#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tally/core/bytes.h"
#include "tally/recsys/data/sequences.h"
#include "tally/recsys/models/item_scorer.h"
#include "tally/recsys/models/recurrent_model.h"

namespace tally::recsys {

class SequenceModel;

/// Any model one event at a time: the state is the last items, as many as it reads, and a hidden row reads all of them
/// again. It gives what encode() gives for a history cut to the window, at any length. For models whose states grow, or
/// move with each event.
class WindowRecurrence {
 public:
  static constexpr std::uint32_t kStateVersion = 2;  ///< 1: numbers for words in the layout

  struct State {
    std::vector<std::int32_t> recent;  ///< event i in place i % window, up to the window
    std::vector<double> times;         ///< of these, where the model reads them; else empty

    std::size_t heap_bytes() const {
      return recent.capacity() * sizeof(std::int32_t) + times.capacity() * sizeof(double);
    }
    void save(std::string& to) const {
      write_values(to, std::span<const std::int32_t>(recent));
      write_values(to, std::span<const double>(times));
    }
  };

  /// `window` counts all items that the model reads. `encode` gives the hidden rows f32 [T, D] of sequences of up to so
  /// many, or of the end of them, with their times if `times`; `model` says in words what no weight shows.
  WindowRecurrence(std::string model, std::int64_t window, bool times, std::function<Tensor(const Sequences&)> encode,
                   ItemScorer scorer)
      : model_(std::move(model)),
        window_(window),
        times_(times),
        encode_(std::move(encode)),
        scorer_(std::move(scorer)) {}

  std::string layout() const;
  ItemScorer scorer() const { return scorer_; }
  State initial_state() const { return {}; }
  bool reads_times() const { return times_; }
  void append(State& state, std::int64_t events, std::int32_t item, double time) const;
  void hidden(const State& state, std::int64_t events, std::span<float> row) const;
  void merge(State& state, std::int64_t events, const State& earlier, std::int64_t earlier_events) const;
  State load(ByteReader& bytes, std::int64_t events) const;

 private:
  std::string model_;
  std::int64_t window_;
  bool times_;
  std::function<Tensor(const Sequences&)> encode_;
  ItemScorer scorer_;
};

/// `model` as it is now, by its window. `weights` is a hash of all weights; `settings` says in words what none shows.
std::shared_ptr<const RecurrentModel> recurrent_by_window(std::shared_ptr<const SequenceModel> model,
                                                          std::uint64_t weights, const std::string& settings);

}  // namespace tally::recsys
