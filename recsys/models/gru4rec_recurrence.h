#pragma once

#include <span>
#include <string>
#include <vector>

#include "tally/core/bytes.h"
#include "tally/recsys/models/gru4rec.h"
#include "tally/recsys/models/item_scorer.h"

namespace tally::recsys {

/// Gru4Rec one event at a time: the state is the row of every layer. It gives the rows of Gru4Rec::encode() of
/// all events, which a cut to the model's window would begin anew.
class Gru4RecRecurrence {
 public:
  static constexpr std::uint32_t kStateVersion = 1;
  struct State {
    std::vector<float> rows;  ///< [layers, width]

    std::size_t heap_bytes() const { return rows.capacity() * sizeof(float); }
    void save(std::string& to) const { write_values(to, std::span<const float>(rows)); }
  };

  explicit Gru4RecRecurrence(const Gru4Rec& model);

  std::string layout() const;
  ItemScorer scorer() const { return ItemScorer::of_table(model_.item_table().value()); }
  State initial_state() const;
  void append(State& state, std::int64_t events, std::int32_t item) const;
  void hidden(const State& state, std::int64_t events, std::span<float> row) const;
  State load(ByteReader& bytes, std::int64_t events) const;

 private:
  std::size_t width() const { return static_cast<std::size_t>(model_.layers[0].hidden_weight.shape()[1]); }

  Gru4Rec model_;
};

}  // namespace tally::recsys
