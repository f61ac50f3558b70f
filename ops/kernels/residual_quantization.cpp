#include "tally/ops/kernels/residual_quantization.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/codewords.h"
#include "tally/ops/kernels/columns.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

// Tiles of rows: the scores of one are about 256 KiB in f32 and stay in the core's cache; fewer than 64 rows would
// spend the time of the product on packing its other factor.
constexpr std::int64_t kTileElements = 1 << 16;
std::int64_t tile_rows(std::int64_t columns) {
  return std::clamp(kTileElements / std::max<std::int64_t>(columns, 1), std::int64_t{64}, std::int64_t{512});
}

// Slices of rows whose part of a table's gradient is summed in the element type; slices are added in double.
constexpr std::int64_t kSliceRows = 2048;
// Slices at a time: bounds the memory for their parts.
constexpr std::int64_t kSlicesTogether = 8;

/// Scores of rows x against every projected codeword.
template <class T>
void score(const QuantizationPlan<T>& plan, std::int64_t begin, std::int64_t rows, T* scores, std::int64_t stride) {
  blas::gemm(Transpose::no, Transpose::yes, rows, plan.columns(), plan.width, T{1}, plan.x + begin * plan.row_stride,
             plan.row_stride, plan.projected, plan.width, T{0}, scores, stride);
}

template <class T, class Code>
CodeRows<Code> code_rows(const QuantizationPlan<T>& plan, const Code* codes, std::int64_t rows) {
  return {codes, plan.code_stride, rows, plan.books, plan.words, plan.width};
}

/// Soft assignments of one tile: logits (in place of the scores), codes and, when not null, the reconstruction.
template <class T, class Code>
void assign_softly(const QuantizationPlan<T>& plan, std::int64_t rows, T* logits, std::int64_t stride, T* probabilities,
                   Code* codes, T* reconstruction) {
  const std::int64_t columns = plan.columns();
  for (std::int64_t book = 0; book < plan.books; ++book) {
    const std::int64_t begin = book * plan.words, later = begin + plan.words;
    const CodewordScores<T> own{.scores = logits + begin,
                                .stride = stride,
                                .rows = rows,
                                .books = 1,
                                .words = plan.words,
                                .bias = plan.bias == nullptr ? nullptr : plan.bias + begin};
    choose_codewords(own, codes + book, plan.code_stride, logits + begin, plan.inverse_temperature);
    softmax_of_words(logits + begin, probabilities + begin, rows, plan.words, stride);
    if (plan.inner == nullptr || later == columns) continue;
    blas::gemm(Transpose::no, Transpose::no, rows, columns - later, plan.words, T{-1}, probabilities + begin, stride,
               plan.inner + begin * columns + later, columns, T{1}, logits + later, stride);
  }
  if (reconstruction == nullptr) return;
  blas::gemm(Transpose::no, Transpose::no, rows, plan.width, columns, T{1}, probabilities, stride, plan.codebooks,
             plan.width, T{0}, reconstruction, plan.row_stride);
}

}  // namespace

template <class T, class Code>
std::int64_t quantize(const QuantizationPlan<T>& plan, Code* codes, T* logits, T* reconstruction) {
  const std::int64_t columns = plan.columns(), height = tile_rows(columns);
  const std::int64_t stride = logits == nullptr ? columns : plan.logit_stride;
  // All rows are looked at before the first is quantized.
  std::vector<std::int64_t> bad(static_cast<std::size_t>(block_count(plan.rows, kSliceRows)), -1);
  parallel_for(plan.rows, kSliceRows, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t row =
        first_row_not_finite(plan.x + begin * plan.row_stride, end - begin, plan.width, plan.row_stride);
    if (row >= 0) bad[static_cast<std::size_t>(begin / kSliceRows)] = begin + row;
  });
  const auto found = std::find_if(bad.begin(), bad.end(), [](std::int64_t row) { return row >= 0; });
  if (found != bad.end()) return *found;
  parallel_for(plan.rows, height, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t rows = end - begin;
    const auto area = static_cast<std::size_t>(rows * stride);
    const auto scratch = std::make_unique_for_overwrite<T[]>(logits == nullptr ? area : 0);
    T* scores = logits == nullptr ? scratch.get() : logits + begin * stride;
    Code* own_codes = codes + begin * plan.code_stride;
    T* own_reconstruction = reconstruction == nullptr ? nullptr : reconstruction + begin * plan.row_stride;
    score(plan, begin, rows, scores, stride);
    if (plan.soft) {
      const auto probabilities = std::make_unique_for_overwrite<T[]>(area);
      assign_softly(plan, rows, scores, stride, probabilities.get(), own_codes, own_reconstruction);
      return;
    }
    const CodewordScores<T> all{scores, stride, rows, plan.books, plan.words, plan.bias, plan.inner};
    choose_codewords(all, own_codes, plan.code_stride, logits == nullptr ? nullptr : scores, plan.inverse_temperature);
    if (own_reconstruction != nullptr) {
      sum_codewords(plan.codebooks, code_rows(plan, own_codes, rows), own_reconstruction, plan.row_stride);
    }
  });
  return -1;
}

namespace {

/// Gradients of tables from one slice of rows; null for those not wanted.
template <class T>
struct TableGradients {
  T *codebooks = nullptr, *projected = nullptr, *inner = nullptr;
  double* bias = nullptr;
};

template <class T, class Code>
class SliceBackward {
 public:
  SliceBackward(const QuantizationPlan<T>& plan, const QuantizationBackward<T, Code>& data,
                const TableGradients<T>& tables)
      : plan_(plan),
        data_(data),
        tables_(tables),
        columns_(plan.columns()),
        // Later books reach an assignment through W x W tables, or, where those are larger than the codewords are wide,
        // through the gradient of x so far.
        through_x_(plan.inner != nullptr && plan.words * (plan.books - 1) > 2 * plan.width),
        through_tables_(plan.inner != nullptr && !through_x_) {
    const auto area = [](bool needed, std::int64_t rows, std::int64_t width) {
      return static_cast<std::size_t>(needed ? rows * width : 0);
    };
    const std::int64_t height = tile_rows(columns_);
    slopes_.resize(area(true, height, columns_));
    probabilities_.resize(area(plan.soft, height, columns_));
    gradient_x_.resize(area(through_x_ && data.x == nullptr, height, plan.width));
    rest_.resize(area(through_x_, height, plan.width));
  }

  void run(std::int64_t begin, std::int64_t end) {
    const std::int64_t height = tile_rows(columns_);
    for (std::int64_t row = begin; row < end; row += height) tile(row, std::min(height, end - row));
  }

 private:
  /// In each part of slopes_: the cotangent of an assignment, then of its scores.
  void tile(std::int64_t begin, std::int64_t rows) {
    const std::int64_t stride = plan_.logit_stride;
    const T* logits = data_.logits + begin * stride;
    const T* direct = data_.gradient_logits == nullptr ? nullptr : data_.gradient_logits + begin * stride;
    const Rows upstream{
        data_.gradient_reconstruction == nullptr ? nullptr : data_.gradient_reconstruction + begin * plan_.row_stride,
        plan_.row_stride};
    // The gradient of x: where it goes, or a place of our own when only the tables' gradients are wanted.
    const bool wanted = data_.x != nullptr;
    T* gradient_x = wanted ? data_.x + begin * plan_.row_stride : gradient_x_.data();
    const std::int64_t x_stride = wanted ? plan_.row_stride : plan_.width;
    if (!through_x_) multiply_codewords(upstream, rows, 0, columns_);
    for (std::int64_t book = plan_.books - 1; book >= 0; --book) {
      const std::int64_t first = book * plan_.words;
      const bool last = book == plan_.books - 1;
      if (through_x_) {
        multiply_codewords(last ? upstream : subtracted(upstream, {gradient_x, x_stride}, rows), rows, first,
                           plan_.words);
      }
      if (through_tables_ && !last) subtract_later(rows, first);
      assignment_slope(AssignmentRows<T>{.logits = logits + first,
                                         .direct = direct == nullptr ? nullptr : direct + first,
                                         .stride = stride,
                                         .rows = rows,
                                         .words = plan_.words},
                       slopes_.data() + first, plan_.soft ? probabilities_.data() + first : nullptr, columns_,
                       plan_.inverse_temperature);
      if (through_x_) add_to_x(gradient_x, x_stride, rows, first, plan_.words, last ? T{0} : T{1});
    }
    if (wanted && !through_x_) add_to_x(gradient_x, x_stride, rows, 0, columns_, T{0});
    add_to_tables(begin, rows, upstream);
  }

  /// Rows of `width`; null for zeros.
  struct Rows {
    const T* data;
    std::int64_t stride;
  };

  /// slopes_ = gradient C^T for `count` codewords from `first` on.
  void multiply_codewords(const Rows& gradient, std::int64_t rows, std::int64_t first, std::int64_t count) {
    if (gradient.data == nullptr) {
      for (std::int64_t row = 0; row < rows; ++row) std::fill_n(slopes_.data() + row * columns_ + first, count, T{0});
      return;
    }
    blas::gemm(Transpose::no, Transpose::yes, rows, count, plan_.width, T{1}, gradient.data, gradient.stride,
               plan_.codebooks + first * plan_.width, plan_.width, T{0}, slopes_.data() + first, columns_);
  }

  /// a - b in rest_.
  Rows subtracted(const Rows& a, const Rows& b, std::int64_t rows) {
    for (std::int64_t row = 0; row < rows; ++row) {
      T* to = rest_.data() + row * plan_.width;
      if (a.data == nullptr) {
        std::fill_n(to, plan_.width, T{0});
      } else {
        std::copy_n(a.data + row * a.stride, plan_.width, to);
      }
      axpy(to, T{-1}, b.data + row * b.stride, plan_.width);
    }
    return {rest_.data(), plan_.width};
  }

  void subtract_later(std::int64_t rows, std::int64_t first) {
    const std::int64_t later = first + plan_.words;
    blas::gemm(Transpose::no, Transpose::yes, rows, plan_.words, columns_ - later, T{-1}, slopes_.data() + later,
               columns_, plan_.inner + first * columns_ + later, columns_, T{1}, slopes_.data() + first, columns_);
  }

  void add_to_x(T* gradient_x, std::int64_t stride, std::int64_t rows, std::int64_t first, std::int64_t count, T keep) {
    blas::gemm(Transpose::no, Transpose::no, rows, plan_.width, count, T{1}, slopes_.data() + first, columns_,
               plan_.projected + first * plan_.width, plan_.width, keep, gradient_x, stride);
  }

  void add_to_tables(std::int64_t begin, std::int64_t rows, const Rows& upstream) {
    const Code* codes = data_.codes + begin * plan_.code_stride;
    if (tables_.projected != nullptr) {
      blas::gemm(Transpose::yes, Transpose::no, columns_, plan_.width, rows, T{1}, slopes_.data(), columns_,
                 plan_.x + begin * plan_.row_stride, plan_.row_stride, T{1}, tables_.projected, plan_.width);
    }
    if (tables_.bias != nullptr) add_column_sums(tables_.bias, slopes_.data(), rows, columns_, columns_);
    if (tables_.codebooks != nullptr && upstream.data != nullptr) {
      if (plan_.soft) {
        blas::gemm(Transpose::yes, Transpose::no, columns_, plan_.width, rows, T{1}, probabilities_.data(), columns_,
                   upstream.data, upstream.stride, T{1}, tables_.codebooks, plan_.width);
      } else {
        scatter_to_codewords(upstream.data, upstream.stride, code_rows(plan_, codes, rows), tables_.codebooks);
      }
    }
    if (tables_.inner != nullptr) add_to_inner(codes, rows);
  }

  void add_to_inner(const Code* codes, std::int64_t rows) {
    for (std::int64_t book = 0; book + 1 < plan_.books; ++book) {
      const std::int64_t first = book * plan_.words, later = first + plan_.words;
      T* out = tables_.inner + first * columns_ + later;
      if (plan_.soft) {
        blas::gemm(Transpose::yes, Transpose::no, plan_.words, columns_ - later, rows, T{-1},
                   probabilities_.data() + first, columns_, slopes_.data() + later, columns_, T{1}, out, columns_);
        continue;
      }
      for (std::int64_t row = 0; row < rows; ++row) {
        axpy(out + codes[row * plan_.code_stride + book] * columns_, T{-1}, slopes_.data() + row * columns_ + later,
             columns_ - later);
      }
    }
  }

  const QuantizationPlan<T>& plan_;
  const QuantizationBackward<T, Code>& data_;
  TableGradients<T> tables_;
  std::int64_t columns_;
  bool through_x_, through_tables_;
  std::vector<T> slopes_, probabilities_, gradient_x_, rest_;
};

/// Gradients of a table from several slices at a time, added in order of the slices.
template <class Part>
class SlicedSum {
 public:
  SlicedSum(bool wanted, std::int64_t size, std::int64_t slices)
      : size_(wanted ? size : 0), parts_(static_cast<std::size_t>(size_ * std::min(slices, kSlicesTogether))) {
    if (slices > 1) totals_.resize(static_cast<std::size_t>(size_));
  }
  Part* part(std::int64_t slot) { return size_ == 0 ? nullptr : parts_.data() + slot * size_; }

  void fold(std::int64_t slots) {
    if (totals_.empty()) return;
    parallel_for(size_, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t slot = 0; slot < slots; ++slot) {
        Part* from = part(slot);
        for (std::int64_t i = begin; i < end; ++i) totals_[static_cast<std::size_t>(i)] += static_cast<double>(from[i]);
        std::fill(from + begin, from + end, Part{0});
      }
    });
  }

  template <class T>
  void store(T* out) const {
    for (std::int64_t i = 0; i < size_; ++i) {
      const auto at = static_cast<std::size_t>(i);
      out[i] = totals_.empty() ? static_cast<T>(parts_[at]) : static_cast<T>(totals_[at]);
    }
  }

 private:
  std::int64_t size_;
  std::vector<Part> parts_;
  std::vector<double> totals_;
};

}  // namespace

template <class T, class Code>
void quantize_backward(const QuantizationPlan<T>& plan, const QuantizationBackward<T, Code>& data) {
  const std::int64_t columns = plan.columns(), slices = block_count(plan.rows, kSliceRows);
  SlicedSum<T> codebooks(data.codebooks != nullptr, columns * plan.width, slices);
  SlicedSum<T> projected(data.projected != nullptr, columns * plan.width, slices);
  SlicedSum<T> inner(data.inner != nullptr, columns * columns, slices);
  SlicedSum<double> bias(data.bias != nullptr, columns, slices);
  for (std::int64_t first = 0; first < slices; first += kSlicesTogether) {
    const std::int64_t slots = std::min(kSlicesTogether, slices - first);
    parallel_for(slots, 1, [&](std::int64_t slot, std::int64_t) {
      const std::int64_t begin = (first + slot) * kSliceRows;
      SliceBackward<T, Code> slice(plan, data,
                                   {codebooks.part(slot), projected.part(slot), inner.part(slot), bias.part(slot)});
      slice.run(begin, std::min(begin + kSliceRows, plan.rows));
    });
    codebooks.fold(slots);
    projected.fold(slots);
    inner.fold(slots);
    bias.fold(slots);
  }
  if (slices == 0) return;
  codebooks.store(data.codebooks);
  projected.store(data.projected);
  inner.store(data.inner);
  bias.store(data.bias);
}

template <class T, class Code>
void scatter_to_chosen(const T* values, std::int64_t value_stride, const CodeRows<Code>& codes, T* gradient) {
  const std::int64_t slices = block_count(codes.rows, kSliceRows);
  if (slices == 0) return;
  SlicedSum<T> sums(true, codes.books * codes.words * codes.width, slices);
  for (std::int64_t first = 0; first < slices; first += kSlicesTogether) {
    const std::int64_t slots = std::min(kSlicesTogether, slices - first);
    parallel_for(slots, 1, [&](std::int64_t slot, std::int64_t) {
      const std::int64_t begin = (first + slot) * kSliceRows;
      CodeRows<Code> slice = codes;
      slice.codes += begin * codes.stride;
      slice.rows = std::min(kSliceRows, codes.rows - begin);
      scatter_to_codewords(values + begin * value_stride, value_stride, slice, sums.part(slot));
    });
    sums.fold(slots);
  }
  sums.store(gradient);
}

template void scatter_to_chosen(const float*, std::int64_t, const CodeRows<std::uint8_t>&, float*);
template void scatter_to_chosen(const float*, std::int64_t, const CodeRows<std::int32_t>&, float*);
template void scatter_to_chosen(const double*, std::int64_t, const CodeRows<std::uint8_t>&, double*);
template void scatter_to_chosen(const double*, std::int64_t, const CodeRows<std::int32_t>&, double*);
template std::int64_t quantize(const QuantizationPlan<float>&, std::uint8_t*, float*, float*);
template std::int64_t quantize(const QuantizationPlan<float>&, std::int32_t*, float*, float*);
template std::int64_t quantize(const QuantizationPlan<double>&, std::uint8_t*, double*, double*);
template std::int64_t quantize(const QuantizationPlan<double>&, std::int32_t*, double*, double*);
template void quantize_backward(const QuantizationPlan<float>&, const QuantizationBackward<float, std::uint8_t>&);
template void quantize_backward(const QuantizationPlan<float>&, const QuantizationBackward<float, std::int32_t>&);
template void quantize_backward(const QuantizationPlan<double>&, const QuantizationBackward<double, std::uint8_t>&);
template void quantize_backward(const QuantizationPlan<double>&, const QuantizationBackward<double, std::int32_t>&);

}  // namespace tally::kernels
