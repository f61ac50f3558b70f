#include "tally/recsys/models/window_recurrence.h"

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {

std::string WindowRecurrence::layout() const {
  return "the last " + std::to_string(window_) + " items" + (model_.empty() ? "" : ", ") + model_;
}

void WindowRecurrence::append(State& state, std::int64_t events, std::int32_t item) const {
  if (static_cast<std::int64_t>(state.recent.size()) < window_) {
    state.recent.push_back(item);
  } else {
    state.recent[static_cast<std::size_t>(events % window_)] = item;
  }
}

std::vector<std::int32_t> WindowRecurrence::in_order(const State& state, std::int64_t events) const {
  std::vector<std::int32_t> items = state.recent;
  if (events > window_) std::rotate(items.begin(), items.begin() + events % window_, items.end());
  return items;
}

void WindowRecurrence::hidden(const State& state, std::int64_t events, std::span<float> row) const {
  const std::vector<std::int32_t> items = in_order(state, events);
  const std::span<const std::int32_t> history(items);
  const Tensor rows = encode_(pack_window(std::span(&history, 1))).contiguous();
  std::copy_n(rows.data<float>() + (rows.dim(0) - 1) * rows.dim(1), row.size(), row.begin());
}

void WindowRecurrence::merge(State& state, std::int64_t events, const State& earlier,
                             std::int64_t earlier_events) const {
  std::vector<std::int32_t> items = in_order(earlier, earlier_events);
  const std::vector<std::int32_t> later = in_order(state, events);
  items.insert(items.end(), later.begin(), later.end());
  const std::int64_t all = events + earlier_events;
  const auto kept = static_cast<std::ptrdiff_t>(std::min(all, window_));
  items.erase(items.begin(), items.end() - kept);
  // Event `all - kept` comes first, and belongs in the place of its number.
  if (all > window_) std::rotate(items.begin(), items.end() - all % window_, items.end());
  state.recent = std::move(items);
}

WindowRecurrence::State WindowRecurrence::load(ByteReader& bytes, std::int64_t events) const {
  State state;
  state.recent.resize(static_cast<std::size_t>(std::min(events, window_)));
  bytes.read(std::span(state.recent));
  const std::int64_t items = scorer_.num_items();
  for (const std::int32_t item : state.recent) {
    check<IoError>(item >= 0 && item < items, "ModelState", "the saved state has item ", item, " of ", items);
  }
  return state;
}

std::shared_ptr<const RecurrentModel> recurrent_by_window(std::shared_ptr<const SequenceModel> model,
                                                          std::uint64_t weights, const std::string& settings) {
  const Paused paused;
  const Prepared prepared = model->prepare(BatchItems::all(model->num_items()));
  const std::int64_t window = model->window(), before = model->events_before();
  WindowRecurrence recurrence(
      settings, window + before,
      [=](const Sequences& batch) { return model->encode(cut_to_window(batch, window, before), prepared, {}).value(); },
      ItemScorer::of_table(model->candidate_table(prepared).value()));
  return std::make_shared<RecurrentModelOf<WindowRecurrence>>(model->name(), weights, std::move(recurrence));
}

}  // namespace tally::recsys
