#pragma once

#include <vector>

#include "tally/ops/kernels/dispatcher_plan.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {

/// Sums over the rows before a chunk, per head and expert, in double: A [heads, k, e], Z [heads, k], and the largest
/// score so far and the score that A and Z are relative to, [heads, k] each. One block, so that it is copied as one.
template <class T>
class GatheredSums {
 public:
  explicit GatheredSums(const DispatcherPlan<T>& plan);
  /// Of no rows.
  void clear();
  double* data() { return numbers_.data(); }
  const double* data() const { return numbers_.data(); }
  std::int64_t size() const { return numbers_.size(); }
  double* values() { return numbers_.data(); }
  double* weights() { return numbers_.data() + columns_ * width_; }
  double* largest() { return weights() + columns_; }
  double* reference() { return largest() + columns_; }

 private:
  std::int64_t columns_, width_;
  Scratch<double> numbers_;
};

/// Where a chunk stands in the packed rows: `rows` of it were planned by lengths alone, the first `count` belong to it.
struct ChunkPlace {
  std::int64_t first = 0, rows = 0, count = 0;
};

/// A chunk of one sequence: buffers and steps. Reading head g has rows [g rows, (g + 1) rows) of stacked matrices,
/// whose distance is heads * e or k.
template <class T>
class DispatcherChunk {
 public:
  /// For chunks of up to `rows` rows. With `backward`, has the buffers of it.
  DispatcherChunk(const DispatcherPlan<T>& plan, std::int64_t rows, bool backward);

  /// Weighs the rows from `first` on, at most `rows`, against the experts' queries; moves the sums' reference, and
  /// returns how many of the rows belong to the chunk.
  std::int64_t load(std::int64_t first, std::int64_t rows, const T* expert_queries, GatheredSums<T>& sums);
  /// What rows read, to rows of the output; those beyond the chunk's count are to be overwritten.
  void read(T* output);
  /// Adds the chunk's rows to the sums.
  void gather(GatheredSums<T>& sums);

  /// Gradients with respect to the sums after a chunk, A [heads, k, e] and Z [heads, k], once they are multiplied by
  /// `carry`: the sums are relative to what the chunk has them relative to.
  struct Later {
    explicit Later(const DispatcherPlan<T>& plan);
    void clear();
    Scratch<double> values, weights;
    std::vector<double> carry;
  };
  /// Where a sequence's part of gradients is added.
  struct Shared {
    T *expert_queries = nullptr, *key_projection = nullptr, *value_projection = nullptr;
  };
  /// Backward of read() and gather() after load().
  void backward(const T* gradient_output, Later& later, const DispatcherGradient<T>& to, const Shared& shared);

 private:
  /// Reading heads [first, end).
  struct Range {
    std::int64_t first, end;
    std::int64_t size() const { return end - first; }
  };
  /// Heads whose scores, and whose reads, come from what head h gathered.
  Range scored_by(std::int64_t h) const { return plan_.mixed_keys ? Range{0, plan_.heads} : Range{h, h + 1}; }
  Range read_by(std::int64_t h) const { return plan_.mixed_values ? Range{0, plan_.heads} : Range{h, h + 1}; }

  std::int64_t head_columns() const { return plan_.heads * plan_.value_width; }
  std::int64_t stack() const { return place_.rows * plan_.heads; }
  T* weights_of(std::int64_t h) { return weights_.data() + h * place_.rows * plan_.experts; }
  T* inverse_of(std::int64_t h) { return inverse_.data() + h * place_.rows * plan_.experts; }
  T* sums_of(std::int64_t h) { return rounded_.data() + h * plan_.experts * plan_.value_width; }
  T* stacked(Scratch<T>& x, std::int64_t g) { return x.data() + g * place_.rows * head_columns(); }
  MatrixRows<const T> rows_of(MatrixRows<const T> x, std::int64_t head, std::int64_t width) const;

  /// Queries in the experts' space, their scores and the softmax of these.
  void score(Scratch<T>& parts, Scratch<T>& inside);
  /// to = x A^T + tril(x V^T) E for source h and the rows of `range`; inside = tril(x V^T).
  void meet_experts(std::int64_t h, Range range, Scratch<T>& x, T* inside, T* to);
  /// The same divided by Z, for all sources, and summed.
  void meet_all_experts(bool reading, Scratch<T>& x, Scratch<T>& parts, Scratch<T>& inside, Scratch<T>& total);
  /// x = weights A + tril(weights E^T) V for source h and the rows of `range`; inside_ = tril(weights E^T).
  void meet_values(std::int64_t h, Range range, const T* weights, Scratch<T>& x);
  void mask(T* matrix, std::int64_t blocks) const;
  void backward_source(std::int64_t h, Later& later, const DispatcherGradient<T>& to, const Shared& shared);
  /// Copies the chunk's rows of temporary_ to a head of a gradient.
  void give(T* gradient, std::int64_t head, std::int64_t width) const;

  const DispatcherPlan<T>& plan_;
  const T* expert_queries_ = nullptr;
  ChunkPlace place_;
  bool fresh_ = true;          ///< no rows before
  std::vector<double> carry_;  ///< [heads, k] what the sums before the chunk were multiplied by
  std::vector<T> reference_, start_, largest_;
  Scratch<T> weights_, inverse_;  ///< [heads, rows, k]
  Scratch<T> rounded_;            ///< [heads, k, e] sums before the chunk
  Scratch<T> queries_, reads_;    ///< stacked, [heads * rows, heads * e]
  Scratch<T> shares_;             ///< [heads * rows, k] the softmax over experts
  Scratch<T> part_, inside_;      ///< [heads * rows, k] and [heads * rows, rows]
  // Backward's.
  Scratch<T> gradient_reads_, gradient_queries_;  ///< stacked
  Scratch<T> gradient_shares_, scaled_;           ///< [heads * rows, k]
  Scratch<T> scores_of_, reads_of_;               ///< [heads, heads * rows, k] each source's part of scores, gradients
  Scratch<T> scores_inside_, reads_inside_;       ///< [heads, heads * rows, rows]
  Scratch<T> products_, slope_;                   ///< [rows, k]
  Scratch<T> rounded_later_, update_, temporary_;
};

}  // namespace tally::kernels
