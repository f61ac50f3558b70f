#pragma once

#include <algorithm>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/dispatcher_plan.h"
#include "tally/ops/kernels/scratch.h"

// What sequences of a dispatcher attention share: how they run in parallel, the projections of experts, and gradients
// that are summed over sequences.

namespace tally::kernels {

/// How sequences are shared out: those of up to `longest_task` rows in parallel, in runs; then longer ones one after
/// the other, each free to be parallel inside. What is summed over sequences has a slot for each run, and one for all
/// long sequences: lengths alone decide their order.
class SequenceSchedule {
 public:
  SequenceSchedule(std::span<const std::int64_t> bounds, std::int64_t longest_task) {
    for (std::int64_t i = 0; i + 1 < static_cast<std::int64_t>(bounds.size()); ++i) {
      const auto at = static_cast<std::size_t>(i);
      (bounds[at + 1] - bounds[at] > longest_task ? alone_ : tasks_).push_back(i);
    }
    grain_ = std::max<std::int64_t>(block_count(count(), kMostRuns), 1);
  }

  std::int64_t slots() const { return runs() + (alone_.empty() ? 0 : 1); }

  /// Calls body(sequence, slot).
  template <class Body>
  void for_each(Body&& body) const {
    parallel_for(count(), grain_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) body(tasks_[static_cast<std::size_t>(t)], begin / grain_);
    });
    for (const std::int64_t i : alone_) body(i, runs());
  }

 private:
  static constexpr std::int64_t kMostRuns = 16;

  std::int64_t count() const { return static_cast<std::int64_t>(tasks_.size()); }
  std::int64_t runs() const { return block_count(count(), grain_); }

  std::vector<std::int64_t> tasks_, alone_;
  std::int64_t grain_ = 1;
};

/// out [k, heads * width] = the projection of experts [k, heads * from]. On the calling thread.
template <class T>
void project_experts(const ExpertProjection<T>& projection, std::int64_t experts, const T* x, T* out);

/// Adds to the gradients of the experts and of the projection (may be null).
template <class T>
void project_experts_backward(const ExpertProjection<T>& projection, std::int64_t experts, const T* x,
                              const T* gradient, T* gradient_x, T* gradient_matrix);

/// Gradients of what all sequences share, summed in slots first.
template <class T>
class DispatcherSums {
 public:
  DispatcherSums(const DispatcherPlan<T>& plan, const DispatcherGradient<T>& to, std::int64_t slots);

  /// Of a slot; null where they are not wanted.
  T* expert_queries(std::int64_t slot) { return expert_queries_.at(slot); }
  T* key_projection(std::int64_t slot) { return key_projection_.at(slot); }
  T* value_projection(std::int64_t slot) { return value_projection_.at(slot); }
  /// Writes the sums over slots to the gradients.
  void fold();

 private:
  struct Sum {
    T* to = nullptr;
    std::int64_t size = 0;
    Scratch<T> slots;
    T* at(std::int64_t slot) { return to == nullptr ? nullptr : slots.data() + slot * size; }
  };
  Sum make(T* to, std::int64_t size) const;

  std::int64_t slots_;
  Sum expert_queries_, key_projection_, value_projection_;
};

}  // namespace tally::kernels
