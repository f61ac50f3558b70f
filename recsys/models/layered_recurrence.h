#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tally/nn/attention/attention.h"
#include "tally/recsys/data/sequences.h"
#include "tally/recsys/models/item_scorer.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

/// A model of layers over embedded items: each row goes by itself through `embed` and `finish`, and layers
/// (nn::TransformerBlock, or others with its members) see the rows before it. encode_layers() is its encode(), and
/// where all layers have a recurrent form it has one without a line of its own.
///
///     Var embed(const Tensor& items, const Tensor& positions, const nn::Context&) const;   // rows i32 [T] to [T, D]
///     std::vector<Layer> blocks;
///     Var finish(const Var& x) const;
///     Var item_table() const;
///     std::int64_t window; PositionAlignment alignment;
///
/// What layers share, a model puts into each of them where they are to stream by themselves: `M for_events() const`, if
/// it has one. `std::string layout() const`: further settings in words. `bool streams() const`: whether what is not in
/// its layers allows it.
template <class M>
concept LayeredModel = requires(const M& model, const Tensor& rows, const Var& x, const nn::Context& context) {
  { model.embed(rows, rows, context) } -> std::convertible_to<Var>;
  { model.finish(x) } -> std::convertible_to<Var>;
  { model.item_table() } -> std::convertible_to<Var>;
  { model.alignment } -> std::convertible_to<PositionAlignment>;
  { model.blocks.at(0).has_state() } -> std::convertible_to<bool>;
  { model.blocks.at(0).reads_times() } -> std::convertible_to<bool>;
  model.window;
};

/// Hidden state after each item, [T, D].
template <LayeredModel M>
Var encode_layers(const M& model, const Sequences& batch, const nn::Context& context) {
  const nn::Sequence sequence{batch.offsets, batch.times};
  Var x = model.embed(batch.items, positions(batch.offsets, model.window, model.alignment), context.at("embedding"));
  for (std::size_t b = 0; b < model.blocks.size(); ++b) {
    x = model.blocks[b](x, sequence, context.at("blocks").at(b));
  }
  return model.finish(x);
}

/// Layers and alignment in words.
template <LayeredModel M>
std::string layout_of_layers(const M& model) {
  std::string words;
  for (const auto& block : model.blocks) words += block.layout() + ", ";
  if constexpr (requires { model.layout(); }) words += model.layout();
  return detail::join(words, "window ", model.window, ", positions from the ", word_of(model.alignment));
}

/// Can events be taken one at a time? Positions that count from the window's end move with every event.
template <LayeredModel M>
bool streams_by_layers(const M& model) {
  if constexpr (requires { model.streams(); }) {
    if (!model.streams()) return false;
  }
  return model.alignment == PositionAlignment::start &&
         std::all_of(model.blocks.begin(), model.blocks.end(), [](const auto& block) { return block.has_state(); });
}

/// Does a layer need the times of events?
template <LayeredModel M>
bool layers_read_times(const M& model) {
  return std::any_of(model.blocks.begin(), model.blocks.end(), [](const auto& block) { return block.reads_times(); });
}

/// A layered model one event at a time: the state is that of every layer, and the last hidden row. An event costs the
/// same however many came before. Event t, from 1 on, takes position min(t, W) - 1; the row is that of encode() of all
/// events, uncut, with a position table whose last row repeats.
template <LayeredModel M>
class LayeredRecurrence {
 public:
  static constexpr std::uint32_t kStateVersion = 2;  ///< 1: the last `window` items

  struct State {
    std::vector<float> row;  ///< [D] after the latest event; zeros before the first
    std::vector<nn::AttentionState> layers;

    std::size_t heap_bytes() const {
      std::size_t total = row.capacity() * sizeof(float) + layers.capacity() * sizeof(nn::AttentionState);
      for (const nn::AttentionState& layer : layers) total += layer.heap_bytes();
      return total;
    }
    void save(std::string& to) const {
      write_values(to, std::span<const float>(row));
      for (const nn::AttentionState& layer : layers) layer.save(to);
    }
  };

  explicit LayeredRecurrence(const M& model) : model_(of_events(model)) {
    initial_.row.resize(static_cast<std::size_t>(model_.item_table().dim(1)));
    for (const auto& block : model_.blocks) initial_.layers.push_back(block.initial_state());
  }

  std::string layout() const { return layout_of_layers(model_); }
  ItemScorer scorer() const { return ItemScorer::of_table(model_.item_table().value()); }
  State initial_state() const { return initial_; }
  bool reads_times() const { return layers_read_times(model_); }

  void append(State& state, std::int64_t events, std::int32_t item, double time) const {
    const std::int64_t position = std::min<std::int64_t>(events, model_.window - 1);
    // A later layer may throw when those before it have taken the event: all but the last are changed in copies.
    std::vector<nn::AttentionState> taken(state.layers.begin(), state.layers.end() - 1);
    Var x = model_.embed(Tensor::from<std::int32_t>({item}, {1}),
                         Tensor::from<std::int32_t>({static_cast<std::int32_t>(position)}, {1}), {});
    for (std::size_t b = 0; b < model_.blocks.size(); ++b) {
      x = model_.blocks[b].step(b < taken.size() ? taken[b] : state.layers[b], x, {.place = events, .time = time});
    }
    const Tensor row = model_.finish(x).value().contiguous();
    std::copy_n(row.data<float>(), state.row.size(), state.row.begin());
    std::move(taken.begin(), taken.end(), state.layers.begin());
  }
  void hidden(const State& state, std::int64_t, std::span<float> row) const {
    std::copy(state.row.begin(), state.row.end(), row.begin());
  }

  State load(ByteReader& bytes, std::int64_t events) const {
    State state = initial_;
    bytes.read(std::span(state.row));
    check<IoError>(std::all_of(state.row.begin(), state.row.end(), [](float x) { return std::isfinite(x); }),
                   "ModelState", "the saved state has a hidden row that is not finite");
    for (nn::AttentionState& layer : state.layers) layer.load(bytes, events);
    return state;
  }

 private:
  static M of_events(const M& model) {
    if constexpr (requires { model.for_events(); }) {
      return model.for_events();
    } else {
      return model;
    }
  }

  M model_;
  State initial_;
};

}  // namespace tally::recsys
