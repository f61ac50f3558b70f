#include "tally/recsys/models/gru4rec_recurrence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tally::recsys {

Gru4RecRecurrence::Gru4RecRecurrence(const Gru4Rec& model) : model_(model) {}

std::string Gru4RecRecurrence::layout() const {
  return fmt::format("gru4rec, {} layers of width {}", model_.layers.size(), width());
}

Gru4RecRecurrence::State Gru4RecRecurrence::initial_state() const {
  return {std::vector<float>(model_.layers.size() * width())};
}

void Gru4RecRecurrence::append(State& state, std::int64_t, std::int32_t item) const {
  const auto columns = static_cast<std::int64_t>(width());
  Var x = model_.items(Tensor::from<std::int32_t>({item}, {1}));
  for (std::size_t layer = 0; layer < model_.layers.size(); ++layer) {
    float* const kept = state.rows.data() + layer * width();
    Tensor before({1, columns});
    std::copy_n(kept, width(), before.mutable_data<float>());
    x = model_.layers[layer](x, Offsets::single(1), Var(before));
    const Tensor after = x.value().contiguous();
    std::copy_n(after.data<float>(), width(), kept);
  }
}

void Gru4RecRecurrence::hidden(const State& state, std::int64_t, std::span<float> row) const {
  Tensor last({1, static_cast<std::int64_t>(width())});
  std::copy(state.rows.end() - static_cast<std::ptrdiff_t>(width()), state.rows.end(), last.mutable_data<float>());
  const Tensor scored = model_.finish(last).value().contiguous();
  std::copy_n(scored.data<float>(), row.size(), row.begin());
}

Gru4RecRecurrence::State Gru4RecRecurrence::load(ByteReader& bytes, std::int64_t) const {
  State state = initial_state();
  bytes.read(std::span(state.rows));
  check<IoError>(std::all_of(state.rows.begin(), state.rows.end(), [](float x) { return std::isfinite(x); }), "gru4rec",
                 "the saved state has a number that is not finite");
  return state;
}

std::shared_ptr<const RecurrentModel> Gru4Rec::recurrent(const std::string& name, std::uint64_t weights) const {
  return std::make_shared<RecurrentModelOf<Gru4RecRecurrence>>(name, weights, Gru4RecRecurrence(*this));
}

}  // namespace tally::recsys
