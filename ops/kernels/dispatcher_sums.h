#pragma once

#include <algorithm>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/dispatcher_plan.h"
#include "tally/ops/kernels/scratch.h"

// What sequences of a dispatcher attention share: how they run in parallel, the projections of experts, and gradients
// that are summed over sequences.

namespace tally::kernels {

/// Partial sums over sequences: their number decides an order of sums, not the threads.
inline constexpr std::int64_t kSequenceSlots = 17;

/// Calls body(sequence, slot): sequences of up to `longest_task` rows in parallel, in runs that share a slot below
/// kSequenceSlots - 1; then longer ones one after the other, each free to be parallel inside, with the last slot.
template <class Body>
void for_each_sequence(std::span<const std::int64_t> bounds, std::int64_t longest_task, Body&& body) {
  std::vector<std::int64_t> tasks, alone;
  for (std::int64_t i = 0; i + 1 < static_cast<std::int64_t>(bounds.size()); ++i) {
    const auto at = static_cast<std::size_t>(i);
    (bounds[at + 1] - bounds[at] > longest_task ? alone : tasks).push_back(i);
  }
  const auto count = static_cast<std::int64_t>(tasks.size());
  const std::int64_t grain = std::max<std::int64_t>(block_count(count, kSequenceSlots - 1), 1);
  parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) body(tasks[static_cast<std::size_t>(t)], begin / grain);
  });
  for (const std::int64_t i : alone) body(i, kSequenceSlots - 1);
}

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
  DispatcherSums(const DispatcherPlan<T>& plan, const DispatcherGradient<T>& to);

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
  static Sum make(T* to, std::int64_t size);

  Sum expert_queries_, key_projection_, value_projection_;
};

}  // namespace tally::kernels
