#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tally/ops/histogram_state.h"
#include "tally/recsys/models/item_scorer.h"
#include "tally/recsys/models/lisa_serving.h"
#include "tally/recsys/models/state_bytes.h"

namespace tally::recsys {

/// LISA one event at a time: the state is a tally of codewords for each block (ops::HistogramState) and the latest
/// item. An event costs the same however many came before, since an event's codes do not depend on where it stands.
///
/// It gives the rows of Lisa::encode() as long as the events fit the window. Beyond, an event's position is the
/// window's last, as that of the last item of a cut history is, and the tally goes on counting (and decaying) what a
/// cut would leave out: with one block, a `counts_window` of at most the model's window and no attention to positions,
/// both are the same at any length. Positions counted from the window's end move with each event: with them only a
/// model of one block has this face.
class LisaRecurrence {
 public:
  struct State {
    std::int32_t latest = -1;  ///< item; -1 when it was taken back, or before the first
    std::vector<ops::HistogramState> blocks;

    std::size_t heap_bytes() const;
    void save(std::string& to) const;
  };

  /// Of a model with full targets: the embeddings of all items are kept, and of `soft` their assignments and
  /// reconstructions. Throws ValueError for other targets, whose face is that of LisaServing, for positions from the
  /// end and more than one block, and for soft assignments with a counts window; DTypeError unless all is f32.
  explicit LisaRecurrence(const Lisa& model);
  explicit LisaRecurrence(const LisaServing& model);

  std::string layout() const;
  ItemScorer scorer() const { return *scorer_; }
  State initial_state() const;
  void append(State& state, std::int64_t events, std::int32_t item) const;
  void hidden(const State& state, std::int64_t events, std::span<float> row) const;
  void step(State& state, std::int64_t events, std::int32_t item, std::span<float> row) const;
  /// One block. Throws ValueError for more, or with a window.
  void merge(State& state, std::int64_t events, const State& earlier, std::int64_t earlier_events) const;
  /// One block without decay and window, hard codes. Throws ValueError else.
  void remove(State& state, std::int64_t events, std::int32_t item) const;
  State load(ByteReader& bytes, std::int64_t events) const;

 private:
  struct Block {
    LisaBlock block;
    ops::VectorQuantizationTables quantizer;
    ops::HistogramReader reader;
    ops::HistogramLayout layout;
    Tensor attended_positions;  // [window, D]; absent where the block does not attend to positions
  };

  /// The codes of row x [1, D] and, when soft, its assignments.
  struct Event {
    std::vector<std::int32_t> codes;
    std::vector<float> assignments;
  };
  LisaRecurrence(std::string kind, std::size_t blocks, const Tensor& positions, PositionAlignment alignment);
  void add_block(const LisaBlock& block, const Tensor& inner, const Tensor& values, const Tensor& attended_positions,
                 bool soft);
  Event item_event(std::int32_t item) const;
  /// Writes what the stream carries for an item, [D].
  void item_vector(std::int32_t item, std::span<float> vector) const;
  Event row_event(const Block& block, const Var& x) const;
  void take(ops::HistogramState& tally, const Event& event) const;
  /// Runs the blocks for the event of `item`, the `events`-th; the tallies of `appending` take it first. Writes the
  /// hidden row unless `row` is empty: then the last block is left as soon as it has taken the event.
  void run(const State& state, State* appending, std::int64_t events, std::int32_t item, std::span<float> row) const;

  std::string kind_;                  // what the model is, for layout()
  std::optional<ItemScorer> scorer_;  // always there once it is made
  Tensor codes_;                      // u8 or i32 [items, B]
  Tensor codebooks_;                  // [B, W, D], whose sums are the items' vectors; absent when soft
  Tensor vectors_;                    // [items, D] where the stream carries other vectors than sums of codewords
  Tensor assignments_;                // [items, B * W] when soft
  Tensor positions_;                  // [window, D]
  PositionAlignment alignment_ = PositionAlignment::start;
  std::vector<Block> blocks_;
};

}  // namespace tally::recsys
