#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tally/core/bytes.h"
#include "tally/ops/attention/histogram_state.h"
#include "tally/recsys/models/item_scorer.h"
#include "tally/recsys/models/lisa.h"

namespace tally::recsys {

/// LISA one event at a time: the state is a tally of codewords for each block (ops::HistogramState) and what the hidden
/// row is had from without a second pass: the row itself, or, of one block, the latest item, since the tally and it say
/// all. So an event of one block that nobody asks about costs O(B W), any other O(B W D) a block, however many came
/// before.
///
/// It gives the rows of Lisa::encode(), by the same forward pass, as long as the events fit the window. Beyond, an
/// event's position is the window's last, as that of the last item of a cut history is, and the tally goes on counting
/// (and decaying) what a cut would leave out: with one block, a `counts_window` of at most the model's window and no
/// attention to positions, both are the same at any length. Positions counted from the window's end move with each
/// event: with them only a model of one block has this form.
class LisaRecurrence {
 public:
  /// 1: the latest item in place of the row of several blocks, tallies with a frame of their own each, numbers for
  /// words in the layout.
  static constexpr std::uint32_t kStateVersion = 2;

  struct State {
    std::int32_t latest = -1;  ///< item; -1 when it was taken back, or before the first
    std::vector<float> row;    ///< [width] of several blocks: after the latest event, empty before the first
    std::vector<ops::HistogramState> blocks;

    std::size_t heap_bytes() const;
    void save(std::string& to) const;
  };

  /// Of what all items are prepared to be, the model's part that is not prepared (Lisa::without_tables) and how items
  /// are scored. `kind` says in words what the model is. Throws ValueError for positions from the end and more than one
  /// block, and for soft assignments with a counts window; DTypeError unless all is f32.
  LisaRecurrence(std::string kind, const Lisa& model, const LisaPrepared& items, ItemScorer scorer);

  std::string layout() const;
  ItemScorer scorer() const { return scorer_; }
  State initial_state() const;
  void append(State& state, std::int64_t events, std::int32_t item) const;
  void hidden(const State& state, std::int64_t events, std::span<float> row) const;
  /// One block. Throws ValueError for more, or with a window.
  void merge(State& state, std::int64_t events, const State& earlier, std::int64_t earlier_events) const;
  /// One block without decay and window, hard codes. Throws ValueError else.
  void remove(State& state, std::int64_t events, std::int32_t item) const;
  State load(ByteReader& bytes, std::int64_t events) const;

 private:
  struct Block {
    ops::HistogramReader reader;
    ops::HistogramLayout layout;
  };

  std::int64_t width() const { return model_.positions.table.shape()[1]; }
  /// The forward pass for one item as the `events`-th event.
  Tensor pass(std::int32_t item, std::int64_t events, const Lisa::Attend& attend) const;
  /// An item as the first block takes it.
  ops::VectorQuantization quantized(std::int32_t item) const;

  std::string kind_;
  Lisa model_;
  LisaPrepared items_;
  ItemScorer scorer_;
  std::vector<Block> blocks_;
};

}  // namespace tally::recsys
