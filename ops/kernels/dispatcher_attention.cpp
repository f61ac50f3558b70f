#include "tally/ops/kernels/dispatcher_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/attention_block.h"
#include "tally/ops/kernels/dispatcher_sums.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

// All sizes are constants of the lengths: they decide the order of sums.
constexpr std::int64_t kSegment = 1024;  // rows that one task gathers or reads
constexpr std::int64_t kRows = 128;      // experts or rows of a tile
constexpr std::int64_t kKeys = 256;      // positions of a tile

/// The experts of one sequence as its rows read them: keys [k, heads * r] and values [k, heads * o].
template <class T>
struct ReadExperts {
  explicit ReadExperts(const DispatcherPlan<T>& plan)
      : keys(plan.experts * plan.heads * plan.query_width), values(plan.experts * plan.heads * plan.output_width) {}
  Scratch<T> keys, values;
};

/// One sequence.
template <class T>
struct Sequence {
  const DispatcherPlan<T>& plan;
  std::int64_t index, row, length;

  Sequence(const DispatcherPlan<T>& call, std::int64_t i)
      : plan(call),
        index(i),
        row(call.bounds[static_cast<std::size_t>(i)]),
        length(call.bounds[static_cast<std::size_t>(i + 1)] - row) {}

  std::int64_t segments() const { return block_count(length, kSegment); }
  /// Calls body(segment, begin, end) for each segment, in parallel unless the sequence is a task itself. Heads are the
  /// innermost loop of a body: a tile's rows are read from memory once, whole.
  template <class Body>
  void for_segments(Body&& body) const {
    parallel_for(length, kSegment, [&](std::int64_t begin, std::int64_t end) { body(begin / kSegment, begin, end); });
  }

  MatrixRows<const T> rows(MatrixRows<const T> x, std::int64_t begin, std::int64_t head, std::int64_t width) const {
    return {x.data + (row + begin) * x.stride + head * width, x.stride};
  }
  template <class U>
  MatrixRows<U> dense(U* x, std::int64_t begin, std::int64_t head, std::int64_t width) const {
    return {x == nullptr ? nullptr : x + ((row + begin) * plan.heads + head) * width, plan.heads * width};
  }
  /// Rows [first, ...) of one head of a matrix of experts.
  template <class U>
  MatrixRows<U> of_experts(U* x, std::int64_t first, std::int64_t head, std::int64_t width) const {
    return {x == nullptr ? nullptr : x + (first * plan.heads + head) * width, plan.heads * width};
  }
  const T* expert_queries() const { return plan.expert_queries + (plan.shared ? 0 : index * plan.expert_query_size()); }
  AttentionBlock<T> gathering_block() const {
    return {std::min(kRows, plan.experts), std::min(kKeys, length), plan.key_width, plan.value_width,
            plan.gather_scale};
  }
  AttentionBlock<T> reading_block() const {
    return {std::min(kRows, length), plan.experts, plan.query_width, plan.output_width, plan.read_scale};
  }
  KeySet<T> positions(std::int64_t begin, std::int64_t end, std::int64_t head) const {
    return {rows(plan.keys, begin, head, plan.key_width), rows(plan.values, begin, head, plan.value_width),
            end - begin};
  }
  KeySet<T> read_set(const ReadExperts<T>& read, std::int64_t head) const {
    return {of_experts<const T>(read.keys.data(), 0, head, plan.query_width),
            of_experts<const T>(read.values.data(), 0, head, plan.output_width), plan.experts};
  }

  /// What the experts gather of each segment, merged: experts [k, heads * e] and their log-sum-exps [k, heads].
  void gather(T* experts, double* log_sum_exp) const {
    const std::int64_t sums = plan.experts * plan.heads;
    Scratch<T> parts;
    Scratch<double> part_logs;
    if (segments() > 1) {
      parts = Scratch<T>(segments() * plan.expert_size());
      part_logs = Scratch<double>(segments() * sums);
    }
    for_segments([&](std::int64_t segment, std::int64_t begin, std::int64_t end) {
      T* to = parts.absent() ? experts : parts.data() + segment * plan.expert_size();
      double* logs = parts.absent() ? log_sum_exp : part_logs.data() + segment * sums;
      std::vector<AttentionBlock<T>> blocks;
      for (std::int64_t head = 0; head < plan.heads; ++head) blocks.push_back(gathering_block());
      for (std::int64_t first = 0; first < plan.experts; first += kRows) {
        const std::int64_t count = std::min(kRows, plan.experts - first);
        for (AttentionBlock<T>& block : blocks) block.start(count);
        for (std::int64_t at = begin; at < end; at += kKeys) {
          for (std::int64_t head = 0; head < plan.heads; ++head) {
            blocks[static_cast<std::size_t>(head)].add(of_experts(expert_queries(), first, head, plan.key_width), count,
                                                       positions(at, std::min(at + kKeys, end), head),
                                                       of_experts(to, first, head, plan.value_width));
          }
        }
        for (std::int64_t head = 0; head < plan.heads; ++head) {
          blocks[static_cast<std::size_t>(head)].finish(count, of_experts(to, first, head, plan.value_width),
                                                        logs + first * plan.heads + head, plan.heads);
        }
      }
    });
    if (parts.absent()) return;
    for (std::int64_t i = 0; i < sums; ++i) {
      double largest = -std::numeric_limits<double>::infinity(), sum = 0;
      const auto log_of = [&](std::int64_t s) { return part_logs.data()[s * sums + i]; };
      for (std::int64_t s = 0; s < segments(); ++s) largest = std::max(largest, log_of(s));
      for (std::int64_t s = 0; s < segments(); ++s) sum += std::exp(log_of(s) - largest);
      const double all = largest + std::log(sum);
      log_sum_exp[i] = all;
      T* to = experts + i * plan.value_width;
      std::fill_n(to, plan.value_width, T{0});
      for (std::int64_t s = 0; s < segments(); ++s) {
        axpy(to, static_cast<T>(std::exp(log_of(s) - all)),
             parts.data() + s * plan.expert_size() + i * plan.value_width, plan.value_width);
      }
    }
  }

  void project(const T* experts, ReadExperts<T>& read) const {
    project_experts(key_projection(plan), plan.experts, experts, read.keys.data());
    project_experts(value_projection(plan), plan.experts, experts, read.values.data());
  }

  void forward(T* output, T* experts, double* read_logs, double* gathered_logs) const {
    T* expert_rows = experts + index * plan.expert_size();
    double* logs = gathered_logs + index * plan.experts * plan.heads;
    if (length == 0) {
      std::fill_n(expert_rows, plan.expert_size(), T{0});
      std::fill_n(logs, plan.experts * plan.heads, 0.0);
      return;
    }
    gather(expert_rows, logs);
    ReadExperts<T> read(plan);
    project(expert_rows, read);
    for_segments([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      AttentionBlock<T> block = reading_block();
      for (std::int64_t at = begin; at < end; at += kRows) {
        const std::int64_t count = std::min(kRows, end - at);
        for (std::int64_t head = 0; head < plan.heads; ++head) {
          const MatrixRows<T> out = dense(output, at, head, plan.output_width);
          block.start(count);
          block.add(rows(plan.queries, at, head, plan.query_width), count, read_set(read, head), out);
          block.finish(count, out, read_logs + (row + at) * plan.heads + head, plan.heads);
        }
      }
    });
  }

  static void clear(MatrixRows<T> x, std::int64_t count, std::int64_t width) {
    if (x.data == nullptr) return;
    for (std::int64_t r = 0; r < count; ++r) std::fill_n(x.data + r * x.stride, width, T{0});
  }

  /// Adds what the segments made of x, in order.
  void fold(const Scratch<T>& parts, std::int64_t size, T* x) const {
    for (std::int64_t s = 0; s < segments(); ++s) add_into(x, parts.data() + s * size, size);
  }

  void backward(const DispatcherBackward<T>& data, const DispatcherGradient<T>& to, DispatcherSums<T>& sums,
                std::int64_t slot, const T* delta) const {
    T* own_queries =
        plan.shared || to.expert_queries == nullptr ? nullptr : to.expert_queries + index * plan.expert_query_size();
    if (own_queries != nullptr) std::fill_n(own_queries, plan.expert_query_size(), T{0});
    if (length == 0) return;
    const T* expert_rows = data.experts + index * plan.expert_size();
    ReadExperts<T> read(plan);
    project(expert_rows, read);

    // The rows' side.
    const std::int64_t key_size = read.keys.size(), value_size = read.values.size();
    auto key_parts = Scratch<T>::zeros(segments() * key_size), value_parts = Scratch<T>::zeros(segments() * value_size);
    for_segments([&](std::int64_t segment, std::int64_t begin, std::int64_t end) {
      AttentionBlock<T> block = reading_block();
      for (std::int64_t at = begin; at < end; at += kRows) {
        const std::int64_t count = std::min(kRows, end - at);
        for (std::int64_t head = 0; head < plan.heads; ++head) {
          const std::int64_t place = (row + at) * plan.heads + head;
          const MatrixRows<T> queries = dense(to.queries, at, head, plan.query_width);
          clear(queries, count, plan.query_width);
          block.backward(rows(plan.queries, at, head, plan.query_width), count, read_set(read, head),
                         dense(data.gradient_output, at, head, plan.output_width), data.read + place, delta + place,
                         plan.heads, queries,
                         {of_experts(key_parts.data() + segment * key_size, 0, head, plan.query_width),
                          of_experts(value_parts.data() + segment * value_size, 0, head, plan.output_width)});
        }
      }
    });
    ReadExperts<T>& gradient = read;  // no longer needed as it was
    gradient.keys.clear();
    gradient.values.clear();
    fold(key_parts, key_size, gradient.keys.data());
    fold(value_parts, value_size, gradient.values.data());

    // The experts.
    Scratch<T> experts(plan.expert_size());
    std::copy_n(data.gradient_experts + index * plan.expert_size(), plan.expert_size(), experts.data());
    project_experts_backward(key_projection(plan), plan.experts, expert_rows, gradient.keys.data(), experts.data(),
                             sums.key_projection(slot));
    project_experts_backward(value_projection(plan), plan.experts, expert_rows, gradient.values.data(), experts.data(),
                             sums.value_projection(slot));

    // The experts' side.
    T* queries_to = plan.shared ? sums.expert_queries(slot) : own_queries;
    if (to.keys == nullptr && to.values == nullptr && queries_to == nullptr) return;
    Scratch<T> expert_delta(plan.experts * plan.heads);
    head_products(expert_rows, experts.data(), plan.experts, plan.heads, plan.value_width, expert_delta.data());
    Scratch<T> query_parts;
    if (queries_to != nullptr) query_parts = Scratch<T>::zeros(segments() * plan.expert_query_size());
    const double* logs = data.gathered + index * plan.experts * plan.heads;
    for_segments([&](std::int64_t segment, std::int64_t begin, std::int64_t end) {
      AttentionBlock<T> block = gathering_block();
      T* part = query_parts.absent() ? nullptr : query_parts.data() + segment * plan.expert_query_size();
      for (std::int64_t at = begin; at < end; at += kKeys) {
        const std::int64_t stop = std::min(at + kKeys, end);
        for (std::int64_t head = 0; head < plan.heads; ++head) {
          const MatrixRows<T> keys = dense(to.keys, at, head, plan.key_width),
                              values = dense(to.values, at, head, plan.value_width);
          clear(keys, stop - at, plan.key_width);
          clear(values, stop - at, plan.value_width);
          for (std::int64_t first = 0; first < plan.experts; first += kRows) {
            const std::int64_t count = std::min(kRows, plan.experts - first), place = first * plan.heads + head;
            block.backward(of_experts(expert_queries(), first, head, plan.key_width), count, positions(at, stop, head),
                           of_experts<const T>(experts.data(), first, head, plan.value_width), logs + place,
                           expert_delta.data() + place, plan.heads, of_experts(part, first, head, plan.key_width),
                           {keys, values});
          }
        }
      }
    });
    if (queries_to != nullptr) fold(query_parts, plan.expert_query_size(), queries_to);
  }
};

}  // namespace

template <class T>
void dispatcher_forward(const DispatcherPlan<T>& plan, T* output, T* experts, double* read, double* gathered) {
  SequenceSchedule(plan.bounds, kSegment).for_each([&](std::int64_t i, std::int64_t) {
    Sequence<T>(plan, i).forward(output, experts, read, gathered);
  });
}

template <class T>
void dispatcher_backward(const DispatcherPlan<T>& plan, const DispatcherBackward<T>& data,
                         const DispatcherGradient<T>& to) {
  const std::int64_t rows = plan.bounds.back();
  Scratch<T> delta(rows * plan.heads);
  head_products(data.output, data.gradient_output, rows, plan.heads, plan.output_width, delta.data());
  const SequenceSchedule schedule(plan.bounds, kSegment);
  DispatcherSums<T> sums(plan, to, schedule.slots());
  schedule.for_each(
      [&](std::int64_t i, std::int64_t slot) { Sequence<T>(plan, i).backward(data, to, sums, slot, delta.data()); });
  sums.fold();
}

template void dispatcher_forward(const DispatcherPlan<float>&, float*, float*, double*, double*);
template void dispatcher_forward(const DispatcherPlan<double>&, double*, double*, double*, double*);
template void dispatcher_backward(const DispatcherPlan<float>&, const DispatcherBackward<float>&,
                                  const DispatcherGradient<float>&);
template void dispatcher_backward(const DispatcherPlan<double>&, const DispatcherBackward<double>&,
                                  const DispatcherGradient<double>&);

}  // namespace tally::kernels
