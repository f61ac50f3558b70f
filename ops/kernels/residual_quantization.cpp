#include "tally/ops/kernels/residual_quantization.h"

#include <algorithm>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/codewords.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

// Tiles of rows. A product packs its other factor, the codewords, for every tile: fewer rows would spend its time on
// that. The scores of a tile of forward are about 1 MiB in f32, and what is at work of them, one book's, a part of it.
// Tiles of backward are half as high, so that a band of rows has work for many cores.
constexpr std::int64_t kTileElements = 1 << 18;
constexpr std::int64_t kBackwardTileElements = 1 << 17;
std::int64_t tile_rows(std::int64_t columns, std::int64_t elements) {
  return std::clamp(elements / std::max<std::int64_t>(columns, 1), std::int64_t{64}, std::int64_t{512});
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
  const std::int64_t columns = plan.columns(), height = tile_rows(columns, kTileElements);
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
    const std::int64_t area = rows * stride;
    Scratch<T> own_scores;
    if (logits == nullptr) own_scores = Scratch<T>(area);
    T* scores = logits == nullptr ? own_scores.data() : logits + begin * stride;
    Code* own_codes = codes + begin * plan.code_stride;
    T* own_reconstruction = reconstruction == nullptr ? nullptr : reconstruction + begin * plan.row_stride;
    score(plan, begin, rows, scores, stride);
    if (plan.soft) {
      Scratch<T> probabilities(area);
      assign_softly(plan, rows, scores, stride, probabilities.data(), own_codes, own_reconstruction);
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

// Backward takes bands of rows. In a band, first the slopes of all its scores, in parallel over tiles of rows; then the
// tables' gradients, in parallel over units of columns, each of which owns its part of every table: nothing is summed
// twice, and there is work for many cores from few rows. Sums of a band are of the element type; bands are added in
// double.
constexpr std::int64_t kBandRows = 2048;
constexpr std::int64_t kUnitColumns = 64;
// Rows of a band lie a line more than their columns apart: powers of two would share few sets of a cache.
constexpr std::int64_t kStridePadding = 16;

/// Columns, counted from the first codebook: some of one codebook, or all of a few small ones.
struct ColumnUnit {
  std::int64_t first = 0, count = 0;
};

/// The part of a unit that belongs to one codebook.
struct BookColumns {
  std::int64_t book = 0, first = 0, count = 0;
};

/// A gradient that units add to band by band: in place while there is one band, else in double until it is stored.
template <class T>
class BandedSum {
 public:
  BandedSum(T* out, std::int64_t size, bool many_bands) : out_(out) {
    if (out != nullptr && many_bands) totals_ = Scratch<double>::zeros(size);
  }
  bool wanted() const { return out_ != nullptr; }

  /// Adds part [rows, columns] to the rows from `at` on, `stride` apart.
  void add(const T* part, std::int64_t rows, std::int64_t columns, std::int64_t at, std::int64_t stride) {
    for (std::int64_t row = 0; row < rows; ++row, part += columns, at += stride) {
      if (totals_.absent()) {
        add_into(out_ + at, part, columns);
        continue;
      }
      double* total = totals_.data() + at;
      for (std::int64_t i = 0; i < columns; ++i) total[i] += static_cast<double>(part[i]);
    }
  }

  void store() const {
    parallel_for(totals_.size(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) out_[i] = static_cast<T>(totals_.data()[i]);
    });
  }

 private:
  T* out_;
  Scratch<double> totals_;
};

template <class T, class Code>
class BackwardPass {
 public:
  BackwardPass(const QuantizationPlan<T>& plan, const QuantizationBackward<T, Code>& data)
      : plan_(plan),
        data_(data),
        columns_(plan.columns()),
        stride_(columns_ + kStridePadding),
        // Later books reach an assignment through W x W tables, or, where those are larger than the codewords are wide,
        // through the gradient of x so far.
        through_x_(plan.inner != nullptr && plan.words * (plan.books - 1) > 2 * plan.width),
        through_tables_(plan.inner != nullptr && !through_x_),
        codebooks_(data.codebooks, columns_ * plan.width, plan.rows > kBandRows),
        projected_(data.projected, columns_ * plan.width, plan.rows > kBandRows),
        inner_(data.inner, columns_ * columns_, plan.rows > kBandRows),
        bias_(static_cast<std::size_t>(data.bias == nullptr ? 0 : columns_)) {
    const std::int64_t area = std::min(plan.rows, kBandRows) * stride_;
    slopes_ = Scratch<T>(area);
    if (plan.soft) probabilities_ = Scratch<T>(area);
    const std::int64_t together = std::max<std::int64_t>(kUnitColumns / plan.words, 1) * plan.words;
    for (std::int64_t books = 0; books < columns_; books += together) {
      const std::int64_t end = std::min(books + together, columns_);
      for (std::int64_t first = books; first < end; first += kUnitColumns) {
        units_.push_back({first, std::min(kUnitColumns, end - first)});
      }
    }
    // Units of later books, which reach more of `inner`, come first.
    std::reverse(units_.begin(), units_.end());
  }

  void run() {
    const std::int64_t height = tile_rows(columns_, kBackwardTileElements);
    for (begin_ = 0; begin_ < plan_.rows; begin_ += kBandRows) {
      rows_ = std::min(kBandRows, plan_.rows - begin_);
      parallel_for(rows_, height, [&](std::int64_t from, std::int64_t to) { tile(from, to - from); });
      parallel_for(static_cast<std::int64_t>(units_.size()), 1,
                   [&](std::int64_t unit, std::int64_t) { add_to_tables(units_[static_cast<std::size_t>(unit)]); });
    }
    codebooks_.store();
    projected_.store();
    inner_.store();
    for (std::size_t i = 0; i < bias_.size(); ++i) data_.bias[i] = static_cast<T>(bias_[i]);
  }

 private:
  /// Rows of `width`; null for zeros.
  struct Rows {
    const T* data;
    std::int64_t stride;
  };

  /// Rows of the band from `first` on: in each part of slopes_ the cotangent of an assignment, then of its scores.
  void tile(std::int64_t first, std::int64_t rows) {
    const std::int64_t stride = plan_.logit_stride, row = begin_ + first;
    const T* logits = data_.logits + row * stride;
    const T* direct = data_.gradient_logits == nullptr ? nullptr : data_.gradient_logits + row * stride;
    T* slopes = slopes_.data() + first * stride_;
    T* probabilities = plan_.soft ? probabilities_.data() + first * stride_ : nullptr;
    const Rows upstream = upstream_from(row);
    // The gradient of x: where it goes, or a place of our own when only the tables' gradients are wanted.
    const auto area = [&](bool needed) { return needed ? Scratch<T>(rows * plan_.width) : Scratch<T>(); };
    Scratch<T> own_x = area(through_x_ && data_.x == nullptr), rest = area(through_x_);
    T* gradient_x = data_.x != nullptr ? data_.x + row * plan_.row_stride : own_x.data();
    const std::int64_t x_stride = data_.x != nullptr ? plan_.row_stride : plan_.width;
    if (!through_x_) multiply_codewords(upstream, rows, 0, columns_, slopes);
    for (std::int64_t book = plan_.books - 1; book >= 0; --book) {
      const std::int64_t begin = book * plan_.words;
      const bool last = book == plan_.books - 1;
      if (through_x_) {
        multiply_codewords(last ? upstream : subtracted(upstream, {gradient_x, x_stride}, rows, rest.data()), rows,
                           begin, plan_.words, slopes);
      }
      if (through_tables_ && !last) subtract_later(rows, begin, slopes);
      assignment_slope(AssignmentRows<T>{.logits = logits + begin,
                                         .direct = direct == nullptr ? nullptr : direct + begin,
                                         .stride = stride,
                                         .rows = rows,
                                         .words = plan_.words},
                       slopes + begin, probabilities == nullptr ? nullptr : probabilities + begin, stride_,
                       plan_.inverse_temperature);
      if (through_x_) add_to_x({gradient_x, x_stride}, slopes, rows, begin, plan_.words, last ? T{0} : T{1});
    }
    if (data_.x != nullptr && !through_x_) add_to_x({gradient_x, x_stride}, slopes, rows, 0, columns_, T{0});
  }

  Rows upstream_from(std::int64_t row) const {
    const T* data = data_.gradient_reconstruction;
    return {data == nullptr ? nullptr : data + row * plan_.row_stride, plan_.row_stride};
  }

  /// slopes = gradient C^T for `count` codewords from `first` on.
  void multiply_codewords(const Rows& gradient, std::int64_t rows, std::int64_t first, std::int64_t count,
                          T* slopes) const {
    if (gradient.data == nullptr) {
      for (std::int64_t row = 0; row < rows; ++row) std::fill_n(slopes + row * stride_ + first, count, T{0});
      return;
    }
    blas::gemm(Transpose::no, Transpose::yes, rows, count, plan_.width, T{1}, gradient.data, gradient.stride,
               plan_.codebooks + first * plan_.width, plan_.width, T{0}, slopes + first, stride_);
  }

  /// a - b in `rest`.
  Rows subtracted(const Rows& a, const Rows& b, std::int64_t rows, T* rest) const {
    for (std::int64_t row = 0; row < rows; ++row) {
      T* to = rest + row * plan_.width;
      if (a.data == nullptr) {
        std::fill_n(to, plan_.width, T{0});
      } else {
        std::copy_n(a.data + row * a.stride, plan_.width, to);
      }
      axpy(to, T{-1}, b.data + row * b.stride, plan_.width);
    }
    return {rest, plan_.width};
  }

  void subtract_later(std::int64_t rows, std::int64_t first, T* slopes) const {
    const std::int64_t later = first + plan_.words;
    blas::gemm(Transpose::no, Transpose::yes, rows, plan_.words, columns_ - later, T{-1}, slopes + later, stride_,
               plan_.inner + first * columns_ + later, columns_, T{1}, slopes + first, stride_);
  }

  struct Target {
    T* data;
    std::int64_t stride;
  };
  void add_to_x(const Target& x, const T* slopes, std::int64_t rows, std::int64_t first, std::int64_t count,
                T keep) const {
    blas::gemm(Transpose::no, Transpose::no, rows, plan_.width, count, T{1}, slopes + first, stride_,
               plan_.projected + first * plan_.width, plan_.width, keep, x.data, x.stride);
  }

  /// The band's part of all tables' gradients that the unit's columns have.
  void add_to_tables(const ColumnUnit& unit) {
    const std::int64_t width = plan_.width;
    const Rows upstream = upstream_from(begin_);
    const T* slopes = slopes_.data() + unit.first;
    Scratch<T> part(unit.count * std::max(width, inner_.wanted() ? columns_ : 0));
    if (projected_.wanted()) {
      blas::gemm(Transpose::yes, Transpose::no, unit.count, width, rows_, T{1}, slopes, stride_,
                 plan_.x + begin_ * plan_.row_stride, plan_.row_stride, T{0}, part.data(), width);
      projected_.add(part.data(), unit.count, width, unit.first * width, width);
    }
    if (!bias_.empty()) add_column_sums(bias_.data() + unit.first, slopes, rows_, unit.count, stride_);
    for (std::int64_t first = unit.first, end = unit.first + unit.count; first < end;) {
      const std::int64_t book = first / plan_.words, next = std::min((book + 1) * plan_.words, end);
      const BookColumns own{book, first, next - first};
      if (codebooks_.wanted() && upstream.data != nullptr) {
        sum_upstream(own, upstream, part.data());
        codebooks_.add(part.data(), own.count, width, first * width, width);
      }
      if (inner_.wanted() && book > 0) {
        sum_later(own, part.data());
        inner_.add(part.data(), book * plan_.words, own.count, first, columns_);
      }
      first = next;
    }
  }

  /// part [count, width]: the rows of the reconstruction's cotangent that chose each of these codewords.
  void sum_upstream(const BookColumns& own, const Rows& upstream, T* part) const {
    const std::int64_t width = plan_.width, first = own.first - own.book * plan_.words;
    if (plan_.soft) {
      blas::gemm(Transpose::yes, Transpose::no, own.count, width, rows_, T{1}, probabilities_.data() + own.first,
                 stride_, upstream.data, upstream.stride, T{0}, part, width);
      return;
    }
    std::fill_n(part, own.count * width, T{0});
    const Code* codes = data_.codes + begin_ * plan_.code_stride + own.book;
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::int64_t word = static_cast<std::int64_t>(codes[row * plan_.code_stride]) - first;
      if (word < 0 || word >= own.count) continue;
      add_into(part + word * width, upstream.data + row * upstream.stride, width);
    }
  }

  /// part [codewords of earlier books, count]: what the choice of each took off these scores.
  void sum_later(const BookColumns& own, T* part) const {
    const std::int64_t earlier = own.book * plan_.words;
    const T* slopes = slopes_.data() + own.first;
    if (plan_.soft) {
      blas::gemm(Transpose::yes, Transpose::no, earlier, own.count, rows_, T{-1}, probabilities_.data(), stride_,
                 slopes, stride_, T{0}, part, own.count);
      return;
    }
    std::fill_n(part, earlier * own.count, T{0});
    const CodeRows<Code> codes{
        data_.codes + begin_ * plan_.code_stride, plan_.code_stride, rows_, own.book, plan_.words, own.count};
    scatter_to_codewords(slopes, stride_, T{-1}, codes, part);
  }

  const QuantizationPlan<T>& plan_;
  const QuantizationBackward<T, Code>& data_;
  std::int64_t columns_, stride_;  // of rows of slopes_ and probabilities_
  bool through_x_, through_tables_;
  BandedSum<T> codebooks_, projected_, inner_;
  std::vector<double> bias_;
  std::vector<ColumnUnit> units_;
  std::int64_t begin_ = 0, rows_ = 0;  // the band at work
  Scratch<T> slopes_, probabilities_;  // [rows, stride]
};

/// Gradients of a table from several slices at a time, added in order of the slices.
template <class Part>
class SlicedSum {
 public:
  SlicedSum(bool wanted, std::int64_t size, std::int64_t slices)
      : size_(wanted ? size : 0), parts_(Scratch<Part>::zeros(size_ * std::min(slices, kSlicesTogether))) {
    if (slices > 1) totals_ = Scratch<double>::zeros(size_);
  }
  Part* part(std::int64_t slot) { return size_ == 0 ? nullptr : parts_.data() + slot * size_; }

  void fold(std::int64_t slots) {
    if (totals_.absent()) return;
    parallel_for(size_, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t slot = 0; slot < slots; ++slot) {
        Part* from = part(slot);
        for (std::int64_t i = begin; i < end; ++i) totals_.data()[i] += static_cast<double>(from[i]);
        std::fill(from + begin, from + end, Part{0});
      }
    });
  }

  template <class T>
  void store(T* out) const {
    for (std::int64_t i = 0; i < size_; ++i) {
      out[i] = totals_.absent() ? static_cast<T>(parts_.data()[i]) : static_cast<T>(totals_.data()[i]);
    }
  }

 private:
  std::int64_t size_;
  Scratch<Part> parts_;
  Scratch<double> totals_;
};

}  // namespace

template <class T, class Code>
void quantize_backward(const QuantizationPlan<T>& plan, const QuantizationBackward<T, Code>& data) {
  if (plan.rows > 0) BackwardPass<T, Code>(plan, data).run();
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
      scatter_to_codewords(values + begin * value_stride, value_stride, T{1}, slice, sums.part(slot));
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
