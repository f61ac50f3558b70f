#include "tally/ops/kernels/causal_dispatcher.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/causal_dispatcher_chunk.h"
#include "tally/ops/kernels/dispatcher_sums.h"

namespace tally::kernels {
namespace {

/// Rows of a chunk, at most: more of them make larger products, of which more is above the diagonal.
constexpr std::int64_t kChunkRows = 32;

std::int64_t inner_checkpoints(std::int64_t length) {
  return std::max<std::int64_t>(block_count(length, kCheckpointRows), 1) - 1;
}

/// One sequence.
template <class T>
struct Walk {
  const DispatcherPlan<T>& plan;
  std::int64_t row, length;
  const T* expert_queries;

  Walk(const DispatcherPlan<T>& call, std::int64_t i)
      : plan(call),
        row(call.bounds[static_cast<std::size_t>(i)]),
        length(call.bounds[static_cast<std::size_t>(i + 1)] - row),
        expert_queries(call.expert_queries + (call.shared ? 0 : i * call.expert_query_size())) {}

  DispatcherChunk<T> chunk(bool backward) const { return {plan, std::min(kChunkRows, length), backward}; }

  /// Loads the chunk that begins at `begin`; returns where the next one does.
  std::int64_t load(DispatcherChunk<T>& chunk, std::int64_t begin, std::int64_t end, GatheredSums<T>& sums) const {
    return begin + chunk.load(row + begin, std::min(kChunkRows, end - begin), expert_queries, sums);
  }

  void forward(T* output, double* checkpoint) const {
    DispatcherChunk<T> chunk = this->chunk(false);
    GatheredSums<T> sums(plan);
    for (std::int64_t first = 0; first < length; first += kCheckpointRows) {
      if (first > 0 && checkpoint != nullptr) checkpoint = std::copy_n(sums.data(), sums.size(), checkpoint);
      const std::int64_t end = std::min(first + kCheckpointRows, length);
      for (std::int64_t begin = first; begin < end;) {
        begin = load(chunk, begin, end, sums);
        chunk.read(output);
        if (begin < length) chunk.gather(sums);
      }
    }
  }

  void backward(const double* checkpoint, const T* gradient_output, const DispatcherGradient<T>& to,
                const typename DispatcherChunk<T>::Shared& shared) const {
    if (length == 0) return;
    DispatcherChunk<T> chunk = this->chunk(true);
    typename DispatcherChunk<T>::Later later(plan);
    for (std::int64_t segment = inner_checkpoints(length); segment >= 0; --segment) {
      const std::int64_t first = segment * kCheckpointRows, end = std::min(first + kCheckpointRows, length);
      // The sums before each chunk of the segment.
      std::vector<GatheredSums<T>> before;
      std::vector<std::int64_t> begins;
      before.emplace_back(plan);
      if (segment > 0) {
        std::copy_n(checkpoint + (segment - 1) * before[0].size(), before[0].size(), before[0].data());
      }
      for (std::int64_t begin = first; begin < end;) {
        begins.push_back(begin);
        GatheredSums<T> sums(plan);
        std::copy_n(before.back().data(), sums.size(), sums.data());
        begin = load(chunk, begin, end, sums);
        if (begin == end) break;
        chunk.gather(sums);
        before.push_back(std::move(sums));
      }
      for (; !begins.empty(); begins.pop_back(), before.pop_back()) {
        load(chunk, begins.back(), end, before.back());
        chunk.backward(gradient_output, later, to, shared);
      }
    }
  }
};

/// Of each sequence, the first of its checkpoints.
std::vector<std::int64_t> first_checkpoints(std::span<const std::int64_t> bounds) {
  std::vector<std::int64_t> first{0};
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i)
    first.push_back(first.back() + inner_checkpoints(bounds[i + 1] - bounds[i]));
  return first;
}

constexpr std::int64_t kNoLimit = std::numeric_limits<std::int64_t>::max();

}  // namespace

std::int64_t checkpoint_count(std::span<const std::int64_t> bounds) { return first_checkpoints(bounds).back(); }

template <class T>
void causal_dispatcher_forward(const DispatcherPlan<T>& plan, T* output, double* checkpoints) {
  const std::vector<std::int64_t> first = first_checkpoints(plan.bounds);
  SequenceSchedule(plan.bounds, kNoLimit).for_each([&](std::int64_t i, std::int64_t) {
    double* result =
        checkpoints == nullptr ? nullptr : checkpoints + first[static_cast<std::size_t>(i)] * checkpoint_size(plan);
    const Walk<T> walk(plan, i);
    if (walk.length > 0) walk.forward(output, result);
  });
}

template <class T>
void causal_dispatcher_backward(const DispatcherPlan<T>& plan, const double* checkpoints, const T* gradient_output,
                                const DispatcherGradient<T>& to) {
  const std::vector<std::int64_t> first = first_checkpoints(plan.bounds);
  const SequenceSchedule schedule(plan.bounds, kNoLimit);
  DispatcherSums<T> sums(plan, to, schedule.slots());
  schedule.for_each([&](std::int64_t i, std::int64_t slot) {
    T* queries = sums.expert_queries(slot);
    if (!plan.shared && to.expert_queries != nullptr) {
      queries = to.expert_queries + i * plan.expert_query_size();
      std::fill_n(queries, plan.expert_query_size(), T{0});
    }
    Walk<T>(plan, i).backward(checkpoints + first[static_cast<std::size_t>(i)] * checkpoint_size(plan), gradient_output,
                              to, {queries, sums.key_projection(slot), sums.value_projection(slot)});
  });
  sums.fold();
}

template void causal_dispatcher_forward(const DispatcherPlan<float>&, float*, double*);
template void causal_dispatcher_forward(const DispatcherPlan<double>&, double*, double*);
template void causal_dispatcher_backward(const DispatcherPlan<float>&, const double*, const float*,
                                         const DispatcherGradient<float>&);
template void causal_dispatcher_backward(const DispatcherPlan<double>&, const double*, const double*,
                                         const DispatcherGradient<double>&);

}  // namespace tally::kernels
