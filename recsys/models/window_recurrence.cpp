#include "tally/recsys/models/window_recurrence.h"

#include <algorithm>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/recsys/models/sequence_model.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {
namespace {

/// Puts the value of the event after `events` into the ring.
template <class T>
void put(std::vector<T>& ring, std::int64_t window, std::int64_t events, T value) {
  if (static_cast<std::int64_t>(ring.size()) < window) {
    ring.push_back(value);
  } else {
    ring[static_cast<std::size_t>(events % window)] = value;
  }
}

/// Oldest first. Empty where none are kept.
template <class T>
std::vector<T> in_order(std::vector<T> ring, std::int64_t window, std::int64_t events) {
  if (events > window && !ring.empty()) std::rotate(ring.begin(), ring.begin() + events % window, ring.end());
  return ring;
}

/// The ring of the events of `earlier` and then those of `later`.
template <class T>
std::vector<T> merged(const std::vector<T>& earlier, std::int64_t earlier_events, const std::vector<T>& later,
                      std::int64_t events, std::int64_t window) {
  std::vector<T> all = in_order(earlier, window, earlier_events);
  const std::vector<T> last = in_order(later, window, events);
  all.insert(all.end(), last.begin(), last.end());
  const std::int64_t count = events + earlier_events;
  if (count <= window) return all;
  all.erase(all.begin(), all.end() - window);
  // Event `count - window` comes first, and belongs in the place of its number.
  std::rotate(all.begin(), all.end() - count % window, all.end());
  return all;
}

}  // namespace

std::string WindowRecurrence::layout() const {
  return "the last " + std::to_string(window_) + " items" + (times_ ? " and their times" : "") +
         (model_.empty() ? "" : ", ") + model_;
}

void WindowRecurrence::append(State& state, std::int64_t events, std::int32_t item, double time) const {
  put(state.recent, window_, events, item);
  if (times_) put(state.times, window_, events, time);
}

void WindowRecurrence::hidden(const State& state, std::int64_t events, std::span<float> row) const {
  const std::vector<std::int32_t> items = in_order(state.recent, window_, events);
  const std::vector<double> times = in_order(state.times, window_, events);
  const std::span<const std::int32_t> history(items);
  const std::span<const double> moments(times);
  const Tensor rows = encode_(pack(std::span(&history, 1), std::span(&moments, times_ ? 1 : 0))).contiguous();
  std::copy_n(rows.data<float>() + (rows.dim(0) - 1) * rows.dim(1), row.size(), row.begin());
}

void WindowRecurrence::merge(State& state, std::int64_t events, const State& earlier,
                             std::int64_t earlier_events) const {
  state.recent = merged(earlier.recent, earlier_events, state.recent, events, window_);
  if (times_) state.times = merged(earlier.times, earlier_events, state.times, events, window_);
}

WindowRecurrence::State WindowRecurrence::load(ByteReader& bytes, std::int64_t events) const {
  State state;
  state.recent.resize(static_cast<std::size_t>(std::min(events, window_)));
  bytes.read(std::span(state.recent));
  const std::int64_t items = scorer_.num_items();
  for (const std::int32_t item : state.recent) {
    check<IoError>(item >= 0 && item < items, "ModelState", "the saved state has item ", item, " of ", items);
  }
  if (!times_) return state;
  state.times.resize(state.recent.size());
  bytes.read(std::span(state.times));
  check<IoError>(std::all_of(state.times.begin(), state.times.end(), [](double time) { return std::isfinite(time); }),
                 "ModelState", "the saved state has a time that is not finite");
  return state;
}

std::shared_ptr<const RecurrentModel> recurrent_by_window(std::shared_ptr<const SequenceModel> model,
                                                          std::uint64_t weights, const std::string& settings) {
  const Paused paused;
  const Prepared prepared = model->prepare(BatchItems::all(model->num_items()));
  const std::int64_t window = model->window(), before = model->events_before();
  WindowRecurrence recurrence(
      settings, window + before, model->reads_times(),
      [=](const Sequences& batch) { return model->encode(cut_to_window(batch, window, before), prepared, {}).value(); },
      ItemScorer::of_table(model->candidate_table(prepared).value()));
  return std::make_shared<RecurrentModelOf<WindowRecurrence>>(model->name(), weights, std::move(recurrence));
}

}  // namespace tally::recsys
