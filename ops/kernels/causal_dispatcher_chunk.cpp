#include "tally/ops/kernels/causal_dispatcher_chunk.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/dispatcher_tile.h"

namespace tally::kernels {

using blas::Transpose;

namespace {

/// How far a score of a chunk may lie above what its weights are relative to, in logarithms.
constexpr double kLargestRise = 30;

std::size_t place(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

template <class T>
GatheredSums<T>::GatheredSums(const DispatcherPlan<T>& plan)
    : columns_(plan.heads * plan.experts), width_(plan.value_width), numbers_(columns_ * (width_ + 3)) {
  clear();
}

template <class T>
void GatheredSums<T>::clear() {
  std::fill_n(values(), columns_ * (width_ + 1), 0.0);
  std::fill_n(largest(), 2 * columns_, -std::numeric_limits<double>::infinity());
}

template <class T>
DispatcherChunk<T>::Later::Later(const DispatcherPlan<T>& plan)
    : values(plan.heads * plan.experts * plan.value_width),
      weights(plan.heads * plan.experts),
      carry(place(plan.heads * plan.experts)) {
  clear();
}

template <class T>
void DispatcherChunk<T>::Later::clear() {
  values.clear();
  weights.clear();
  std::fill(carry.begin(), carry.end(), 1.0);
}

template <class T>
DispatcherChunk<T>::DispatcherChunk(const DispatcherPlan<T>& plan, std::int64_t rows, bool backward)
    : plan_(plan),
      carry_(place(plan.heads * plan.experts)),
      reference_(carry_.size()),
      start_(carry_.size()),
      largest_(carry_.size()) {
  const std::int64_t h = plan.heads, k = plan.experts, stack = h * rows, e = plan.value_width;
  weights_ = Scratch<T>(stack * k);
  inverse_ = Scratch<T>(stack * k);
  rounded_ = Scratch<T>(h * k * e);
  queries_ = Scratch<T>(stack * h * e);
  reads_ = Scratch<T>(stack * h * e);
  shares_ = Scratch<T>(stack * k);
  part_ = Scratch<T>(stack * k);
  inside_ = Scratch<T>(stack * rows);
  update_ = Scratch<T>(k * e);
  if (!backward) return;
  gradient_reads_ = Scratch<T>(stack * h * e);
  gradient_queries_ = Scratch<T>(stack * h * e);
  gradient_shares_ = Scratch<T>(stack * k);
  scaled_ = Scratch<T>(stack * k);
  scores_of_ = Scratch<T>(h * stack * k);
  reads_of_ = Scratch<T>(h * stack * k);
  scores_inside_ = Scratch<T>(h * stack * rows);
  reads_inside_ = Scratch<T>(h * stack * rows);
  products_ = Scratch<T>(rows * k);
  slope_ = Scratch<T>(rows * k);
  rounded_later_ = Scratch<T>(k * e);
  temporary_ = Scratch<T>(rows * std::max({plan.key_width, e, plan.query_width}));
}

template <class T>
MatrixRows<const T> DispatcherChunk<T>::rows_of(MatrixRows<const T> x, std::int64_t head, std::int64_t width) const {
  return {x.data + place_.first * x.stride + head * width, x.stride};
}

template <class T>
std::int64_t DispatcherChunk<T>::load(std::int64_t first, std::int64_t rows, const T* expert_queries,
                                      GatheredSums<T>& sums) {
  const std::int64_t k = plan_.experts, d = plan_.key_width;
  place_ = {first, rows, rows};
  expert_queries_ = expert_queries;
  fresh_ = std::isinf(sums.largest()[0]);
  for (std::int64_t h = 0; h < plan_.heads; ++h) {
    const MatrixRows<const T> keys = rows_of(plan_.keys, h, d);
    T* scores = weights_of(h);
    blas::gemm(Transpose::no, Transpose::yes, rows, k, d, static_cast<T>(plan_.gather_scale), keys.data, keys.stride,
               expert_queries + h * d, plan_.heads * d, T{0}, scores, k);
    for (std::int64_t i = 0; i < k; ++i) {
      const auto before = static_cast<T>(sums.largest()[h * k + i]);
      // Written so that a score which is NaN becomes the reference.
      reference_[place(h * k + i)] = scores[i] <= before ? before : scores[i];
    }
    place_.count = std::min(place_.count,
                            first_row_above(scores, rows, k, reference_.data() + h * k, static_cast<T>(kLargestRise)));
  }
  for (std::int64_t i = 0; i < plan_.heads * k; ++i) {
    carry_[place(i)] = std::exp(sums.reference()[i] - static_cast<double>(reference_[place(i)]));
    sums.reference()[i] = static_cast<double>(reference_[place(i)]);
    sums.weights()[i] *= carry_[place(i)];
    start_[place(i)] = static_cast<T>(sums.weights()[i]);
    largest_[place(i)] = reference_[place(i)];
  }
  add_to_sums(sums.values(), carry_.data(), static_cast<const T*>(nullptr), plan_.heads * k, plan_.value_width,
              rounded_.data());
  for (std::int64_t h = 0; h < plan_.heads; ++h) {
    weigh_rows(weights_of(h), rows, place_.count, k, reference_.data() + h * k, start_.data() + h * k, inverse_of(h),
               largest_.data() + h * k);
  }
  std::copy(largest_.begin(), largest_.end(), sums.largest());
  return place_.count;
}

template <class T>
void DispatcherChunk<T>::gather(GatheredSums<T>& sums) {
  const std::int64_t k = plan_.experts, e = plan_.value_width;
  for (std::int64_t h = 0; h < plan_.heads; ++h) {
    const MatrixRows<const T> values = rows_of(plan_.values, h, e);
    blas::gemm(Transpose::yes, Transpose::no, k, e, place_.rows, T{1}, weights_of(h), k, values.data, values.stride,
               T{0}, update_.data(), e);
    add_to_sums(sums.values() + h * k * e, nullptr, update_.data(), k, e, update_.data());
    add_column_sums(sums.weights() + h * k, weights_of(h), place_.rows, k, k);
  }
}

template <class T>
void DispatcherChunk<T>::mask(T* matrix, std::int64_t blocks) const {
  const std::int64_t rows = place_.rows;
  for (std::int64_t r = 0; r < blocks * rows; ++r)
    std::fill_n(matrix + r * rows + r % rows + 1, rows - r % rows - 1, T{0});
}

template <class T>
void DispatcherChunk<T>::meet_experts(std::int64_t h, Range range, Scratch<T>& x, T* inside, T* to) {
  const std::int64_t k = plan_.experts, e = plan_.value_width, rows = place_.rows, m = range.size() * rows;
  const MatrixRows<const T> values = rows_of(plan_.values, h, e);
  const T* from = stacked(x, range.first) + h * e;
  blas::gemm(Transpose::no, Transpose::yes, m, rows, e, T{1}, from, head_columns(), values.data, values.stride, T{0},
             inside, rows);
  mask(inside, range.size());
  blas::gemm(Transpose::no, Transpose::no, m, k, rows, T{1}, inside, rows, weights_of(h), k, T{0}, to, k);
  if (fresh_) return;
  blas::gemm(Transpose::no, Transpose::yes, m, k, e, T{1}, from, head_columns(), sums_of(h), e, T{1}, to, k);
}

template <class T>
void DispatcherChunk<T>::meet_values(std::int64_t h, Range range, const T* weights, Scratch<T>& x) {
  const std::int64_t k = plan_.experts, e = plan_.value_width, rows = place_.rows, m = range.size() * rows;
  const MatrixRows<const T> values = rows_of(plan_.values, h, e);
  T* to = stacked(x, range.first) + h * e;
  blas::gemm(Transpose::no, Transpose::yes, m, rows, k, T{1}, weights, k, weights_of(h), k, T{0}, inside_.data(), rows);
  mask(inside_.data(), range.size());
  blas::gemm(Transpose::no, Transpose::no, m, e, rows, T{1}, inside_.data(), rows, values.data, values.stride, T{0}, to,
             head_columns());
  if (fresh_) return;
  blas::gemm(Transpose::no, Transpose::no, m, e, k, T{1}, weights, k, sums_of(h), e, T{1}, to, head_columns());
}

template <class T>
void DispatcherChunk<T>::meet_all_experts(bool reading, Scratch<T>& x, Scratch<T>& parts, Scratch<T>& inside,
                                          Scratch<T>& total) {
  const std::int64_t block = place_.rows * plan_.experts;
  const bool keep = !scores_of_.absent();  // of every source for backward, else of one at a time
  std::fill_n(total.data(), stack() * plan_.experts, T{0});
  for (std::int64_t h = 0; h < plan_.heads; ++h) {
    const Range range = reading ? read_by(h) : scored_by(h);
    T* part = parts.data() + (keep ? h * stack() * plan_.experts : 0);
    meet_experts(h, range, x, inside.data() + (keep ? h * stack() * place_.rows : 0), part);
    multiply_blocks(part, part, inverse_of(h), range.size(), block);
    add_into(total.data() + range.first * block, part, range.size() * block);
  }
}

template <class T>
void DispatcherChunk<T>::score(Scratch<T>& parts, Scratch<T>& inside) {
  const ExpertProjection<T> projection = key_projection(plan_);
  for (std::int64_t g = 0; g < plan_.heads; ++g) {
    const MatrixRows<const T> rows = rows_of(plan_.queries, g, plan_.query_width);
    const std::int64_t first = projection.first(g), columns = (projection.end(g) - first) * plan_.value_width;
    blas::gemm(Transpose::no, Transpose::yes, place_.rows, columns, plan_.query_width, static_cast<T>(plan_.read_scale),
               rows.data, rows.stride, projection.matrix + projection.offset(first, g), projection.stride(), T{0},
               stacked(queries_, g) + first * plan_.value_width, head_columns());
  }
  meet_all_experts(false, queries_, parts, inside, shares_);
  softmax_in_place(shares_.data(), stack(), plan_.experts);
}

template <class T>
void DispatcherChunk<T>::read(T* output) {
  score(part_, inside_);
  const std::int64_t block = place_.rows * plan_.experts;
  for (std::int64_t h = 0; h < plan_.heads; ++h) {
    const Range range = read_by(h);
    multiply_blocks(part_.data(), shares_.data() + range.first * block, inverse_of(h), range.size(), block);
    meet_values(h, range, part_.data(), reads_);
  }
  const ExpertProjection<T> projection = value_projection(plan_);
  for (std::int64_t g = 0; g < plan_.heads; ++g) {
    const std::int64_t first = projection.first(g), columns = (projection.end(g) - first) * plan_.value_width;
    blas::gemm(Transpose::no, Transpose::no, place_.rows, plan_.output_width, columns, T{1},
               stacked(reads_, g) + first * plan_.value_width, head_columns(),
               projection.matrix + projection.offset(first, g), projection.stride(), T{0},
               output + (place_.first * plan_.heads + g) * plan_.output_width, plan_.heads * plan_.output_width);
  }
}

template <class T>
void DispatcherChunk<T>::give(T* gradient, std::int64_t head, std::int64_t width) const {
  if (gradient == nullptr) return;
  for (std::int64_t r = 0; r < place_.count; ++r) {
    std::copy_n(temporary_.data() + r * width, width, gradient + ((place_.first + r) * plan_.heads + head) * width);
  }
}

template <class T>
void DispatcherChunk<T>::backward(const T* gradient_output, Later& later, const DispatcherGradient<T>& to,
                                  const Shared& shared) {
  const std::int64_t k = plan_.experts, e = plan_.value_width, o = plan_.output_width;
  score(scores_of_, scores_inside_);
  const T* gradient = gradient_output + place_.first * plan_.heads * o;
  const ExpertProjection<T> values = value_projection(plan_), keys = key_projection(plan_);
  for (std::int64_t g = 0; g < plan_.heads; ++g) {
    const std::int64_t first = values.first(g), columns = (values.end(g) - first) * e;
    blas::gemm(Transpose::no, Transpose::yes, place_.rows, columns, o, T{1}, gradient + g * o, plan_.heads * o,
               values.matrix + values.offset(first, g), values.stride(), T{0}, stacked(gradient_reads_, g) + first * e,
               head_columns());
  }
  meet_all_experts(true, gradient_reads_, reads_of_, reads_inside_, gradient_shares_);
  softmax_slope_in_place(gradient_shares_.data(), shares_.data(), stack(), k);

  for (std::int64_t h = 0; h < plan_.heads; ++h) backward_source(h, later, to, shared);
  std::copy(carry_.begin(), carry_.end(), later.carry.begin());

  const auto scale = static_cast<T>(plan_.read_scale);
  for (std::int64_t g = 0; g < plan_.heads; ++g) {
    const std::int64_t first = keys.first(g), columns = (keys.end(g) - first) * e, r = plan_.query_width;
    const T* absorbed = stacked(gradient_queries_, g) + first * e;
    if (to.queries != nullptr) {
      blas::gemm(Transpose::no, Transpose::no, place_.rows, r, columns, scale, absorbed, head_columns(),
                 keys.matrix + keys.offset(first, g), keys.stride(), T{0}, temporary_.data(), r);
      give(to.queries, g, r);
    }
    if (shared.key_projection != nullptr) {
      const MatrixRows<const T> rows = rows_of(plan_.queries, g, r);
      blas::gemm(Transpose::yes, Transpose::no, columns, r, place_.rows, scale, absorbed, head_columns(), rows.data,
                 rows.stride, T{1}, shared.key_projection + keys.offset(first, g), keys.stride());
    }
    if (shared.value_projection != nullptr) {
      const std::int64_t begin = values.first(g), wide = (values.end(g) - begin) * e;
      blas::gemm(Transpose::yes, Transpose::no, wide, o, place_.rows, T{1}, stacked(reads_, g) + begin * e,
                 head_columns(), gradient + g * o, plan_.heads * o, T{1},
                 shared.value_projection + values.offset(begin, g), values.stride());
    }
  }
}

template <class T>
void DispatcherChunk<T>::backward_source(std::int64_t h, Later& later, const DispatcherGradient<T>& to,
                                         const Shared& shared) {
  const std::int64_t k = plan_.experts, e = plan_.value_width, d = plan_.key_width, rows = place_.rows;
  const std::int64_t block = rows * k;
  const Range scored = scored_by(h), reading = read_by(h);
  const std::int64_t scored_rows = scored.size() * rows, read_rows = reading.size() * rows;
  const T* slopes = gradient_shares_.data() + scored.first * block;
  const T* shares = shares_.data() + reading.first * block;
  const T* scores_inside = scores_inside_.data() + h * stack() * rows;
  const T* reads_inside = reads_inside_.data() + h * stack() * rows;
  T *scored_shares = scaled_.data(), *read_shares = part_.data();
  multiply_blocks(scored_shares, slopes, inverse_of(h), scored.size(), block);
  multiply_blocks(read_shares, shares, inverse_of(h), reading.size(), block);

  // Of the sums that a row divides by: minus the gradient of an expert times the expert, over the sum.
  std::fill_n(products_.data(), block, T{0});
  add_products(products_.data(), slopes, scores_of_.data() + h * stack() * k, scored.size(), block);
  add_products(products_.data(), shares, reads_of_.data() + h * stack() * k, reading.size(), block);
  multiply_blocks(products_.data(), products_.data(), inverse_of(h), 1, block);

  // What comes after the chunk.
  double* later_weights = later.weights.data() + h * k;
  const double* later_carry = later.carry.data() + h * k;
  for (std::int64_t i = 0; i < k; ++i) start_[place(i)] = static_cast<T>(later_weights[i] *= later_carry[i]);
  add_to_sums(later.values.data() + h * k * e, later_carry, static_cast<const T*>(nullptr), k, e,
              rounded_later_.data());

  // Of the weights, then of the scores.
  const MatrixRows<const T> values = rows_of(plan_.values, h, e);
  blas::gemm(Transpose::yes, Transpose::no, rows, k, scored_rows, T{1}, scores_inside, rows, scored_shares, k, T{0},
             slope_.data(), k);
  blas::gemm(Transpose::yes, Transpose::no, rows, k, read_rows, T{1}, reads_inside, rows, read_shares, k, T{1},
             slope_.data(), k);
  blas::gemm(Transpose::no, Transpose::yes, rows, k, e, T{1}, values.data, values.stride, rounded_later_.data(), e,
             T{1}, slope_.data(), k);
  weight_slope(slope_.data(), weights_of(h), products_.data(), rows, k, start_.data());

  // Of the values; queries and reads on the way.
  const T *queries = stacked(queries_, scored.first) + h * e,
          *gradient_reads = stacked(gradient_reads_, reading.first) + h * e;
  T* gradient_values = temporary_.data();
  blas::gemm(Transpose::no, Transpose::no, rows, e, k, T{1}, weights_of(h), k, rounded_later_.data(), e, T{0},
             gradient_values, e);
  meet_values(h, scored, scored_shares, gradient_queries_);
  blas::gemm(Transpose::yes, Transpose::no, rows, e, scored_rows, T{1}, inside_.data(), rows, queries, head_columns(),
             T{1}, gradient_values, e);
  meet_values(h, reading, read_shares, reads_);
  blas::gemm(Transpose::yes, Transpose::no, rows, e, read_rows, T{1}, inside_.data(), rows, gradient_reads,
             head_columns(), T{1}, gradient_values, e);
  give(to.values, h, e);

  // Of the sums before.
  blas::gemm(Transpose::yes, Transpose::no, k, e, scored_rows, T{1}, scored_shares, k, queries, head_columns(), T{0},
             update_.data(), e);
  blas::gemm(Transpose::yes, Transpose::no, k, e, read_rows, T{1}, read_shares, k, gradient_reads, head_columns(), T{1},
             update_.data(), e);
  add_to_sums(later.values.data() + h * k * e, nullptr, update_.data(), k, e, update_.data());
  scale(products_.data(), T{-1}, block);
  add_column_sums(later_weights, products_.data(), rows, k, k);

  const auto gather_scale = static_cast<T>(plan_.gather_scale);
  if (to.keys != nullptr) {
    blas::gemm(Transpose::no, Transpose::no, rows, d, k, gather_scale, slope_.data(), k, expert_queries_ + h * d,
               plan_.heads * d, T{0}, temporary_.data(), d);
    give(to.keys, h, d);
  }
  if (shared.expert_queries != nullptr) {
    const MatrixRows<const T> keys = rows_of(plan_.keys, h, d);
    blas::gemm(Transpose::yes, Transpose::no, k, d, rows, gather_scale, slope_.data(), k, keys.data, keys.stride, T{1},
               shared.expert_queries + h * d, plan_.heads * d);
  }
}

template class GatheredSums<float>;
template class GatheredSums<double>;
template class DispatcherChunk<float>;
template class DispatcherChunk<double>;

}  // namespace tally::kernels
