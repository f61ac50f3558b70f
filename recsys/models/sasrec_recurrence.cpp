#include "tally/recsys/models/sasrec_recurrence.h"

#include <fmt/format.h>

#include <algorithm>

#include "tally/recsys/models/enum_words.h"

namespace tally::recsys {

SasRecRecurrence::SasRecRecurrence(const SasRec& model) : model_(model) {}

std::string SasRecRecurrence::layout() const {
  return fmt::format(
      "sasrec, the last {} items, {} blocks of {} heads, {}, norm {}, activation {}, positions from the {}",
      model_.window, model_.blocks.size(), model_.blocks[0].attention.attention.settings.heads,
      model_.blocks[0].attention.attention.name, word_of(model_.blocks[0].norm),
      word_of(model_.blocks[0].feed_forward.activation), word_of(model_.alignment));
}

void SasRecRecurrence::append(State& state, std::int64_t events, std::int32_t item) const {
  if (static_cast<std::int64_t>(state.recent.size()) < model_.window) {
    state.recent.push_back(item);
  } else {
    state.recent[static_cast<std::size_t>(events % model_.window)] = item;
  }
}

std::vector<std::int32_t> SasRecRecurrence::in_order(const State& state, std::int64_t events) const {
  std::vector<std::int32_t> items = state.recent;
  if (events > model_.window) std::rotate(items.begin(), items.begin() + events % model_.window, items.end());
  return items;
}

void SasRecRecurrence::hidden(const State& state, std::int64_t events, std::span<float> row) const {
  const std::vector<std::int32_t> items = in_order(state, events);
  const std::span<const std::int32_t> history(items);
  const Tensor rows = model_.encode(pack_window(std::span(&history, 1)), {}).value().contiguous();
  std::copy_n(rows.data<float>() + (rows.dim(0) - 1) * rows.dim(1), row.size(), row.begin());
}

void SasRecRecurrence::merge(State& state, std::int64_t events, const State& earlier,
                             std::int64_t earlier_events) const {
  std::vector<std::int32_t> items = in_order(earlier, earlier_events);
  const std::vector<std::int32_t> own = in_order(state, events);
  items.insert(items.end(), own.begin(), own.end());
  const std::int64_t all = events + earlier_events;
  const auto kept = static_cast<std::ptrdiff_t>(std::min(all, model_.window));
  items.erase(items.begin(), items.end() - kept);
  // Event `all - kept` comes first, and belongs in the place of its number.
  if (all > model_.window) std::rotate(items.begin(), items.end() - all % model_.window, items.end());
  state.recent = std::move(items);
}

SasRecRecurrence::State SasRecRecurrence::load(ByteReader& bytes, std::int64_t events) const {
  State state;
  state.recent.resize(static_cast<std::size_t>(std::min(events, model_.window)));
  bytes.read(std::span(state.recent));
  const std::int64_t items = model_.items.table.shape()[0];
  for (const std::int32_t item : state.recent) {
    check<IoError>(item >= 0 && item < items, "sasrec", "the saved state has item ", item, " of ", items);
  }
  return state;
}

std::shared_ptr<const RecurrentModel> SasRec::recurrent(const std::string& name, std::uint64_t weights) const {
  return std::make_shared<RecurrentModelOf<SasRecRecurrence>>(name, weights, SasRecRecurrence(*this));
}

}  // namespace tally::recsys
