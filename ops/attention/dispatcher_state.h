#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tally/ops/attention/dispatcher_attention.h"

namespace tally::ops {

/// The recurrent form of causal_dispatcher_attention(): what the experts gathered of one sequence's events, k (heads e
/// + 2 heads) numbers however long the history. A plain value: copy it, compare it, save its members.
struct DispatcherState {
  std::int64_t heads = 0, experts = 0, value_width = 0;
  std::vector<double> sums;     ///< [heads, k, e] of weights times values, relative to exp(largest)
  std::vector<double> weights;  ///< [heads, k] of weights, relative likewise
  std::vector<double> largest;  ///< [heads, k] score so far, -infinity at first
  std::int64_t events = 0;

  friend bool operator==(const DispatcherState&, const DispatcherState&) = default;
};

/// The state before the first event. `value_width` is e. Throws ValueError for sizes below 1.
DispatcherState dispatcher_state(std::int64_t heads, std::int64_t experts, std::int64_t value_width);

/// What an event's answer reads of the parameters: checked and laid out once, for all states of a model.
class DispatcherReader {
 public:
  /// expert_queries [k, heads * d] of all sequences or of this one, and projections, f32 or f64, as in
  /// DispatcherInputs. Throws ShapeError, DTypeError; ValueError as dispatcher_attention(), and for projections that
  /// are not finite.
  DispatcherReader(const Tensor& expert_queries, const Tensor& key_projection, const Tensor& value_projection,
                   const DispatcherOptions& options = {});

  std::int64_t heads() const { return heads_; }
  std::int64_t experts() const { return experts_; }
  std::int64_t key_width() const { return key_width_; }        ///< d
  std::int64_t value_width() const { return value_width_; }    ///< e
  std::int64_t query_width() const { return query_width_; }    ///< r
  std::int64_t output_width() const { return output_width_; }  ///< o

  /// Adds an event's key [heads * d] and value [heads * e] to the state, then answers its query [heads * r]: output
  /// [heads * o] is the row that causal_dispatcher_attention() gives at this place, up to rounding. O(heads k D + D^2),
  /// in double; nothing depends on the history. Throws ShapeError for other sizes, or a state of others; ValueError for
  /// a key, value or query that is not finite, and then the state is as it was.
  void step(DispatcherState& state, std::span<const float> key, std::span<const float> value,
            std::span<const float> query, std::span<float> output) const;
  /// The same in double.
  void step(DispatcherState& state, std::span<const double> key, std::span<const double> value,
            std::span<const double> query, std::span<double> output) const;

 private:
  template <class T>
  void step_of(DispatcherState& state, std::span<const T> key, std::span<const T> value, std::span<const T> query,
               std::span<T> output) const;

  std::int64_t heads_, experts_, key_width_, value_width_, query_width_, output_width_;
  double gather_scale_, read_scale_;
  bool mixed_keys_, mixed_values_;
  std::vector<double> expert_queries_, key_projection_, value_projection_;
};

/// The state of both histories together, as if the events of one had followed the other's. Throws ShapeError when the
/// sizes differ.
DispatcherState merge(const DispatcherState& a, const DispatcherState& b);

}  // namespace tally::ops
