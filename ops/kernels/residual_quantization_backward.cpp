#include <algorithm>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/core/right_operand.h"
#include "tally/ops/kernels/codeword_assignment.h"
#include "tally/ops/kernels/codewords.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/quantization_groups.h"
#include "tally/ops/kernels/residual_quantization.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using namespace quantization;
using blas::Transpose;

// A band of few columns has four tiles of this size: work for as many cores.
constexpr std::int64_t kTileElements = 1 << 14;

// Slices of rows whose part of a table's gradient is summed in the element type; slices are added in double.
constexpr std::int64_t kSliceRows = 2048;
// Slices at a time: bounds the memory for their parts.
constexpr std::int64_t kSlicesTogether = 8;

// Backward takes bands of rows. In a band, first the slopes of all its scores, in parallel over tiles of rows, from the
// last codebook to the first; then the tables' gradients, in parallel over units of columns, each of which owns its
// part of every table: nothing is summed twice, and there is work for many cores from few rows. Sums of a band are of
// the element type; bands are added in double.
//
// What later codebooks took off a choice reaches it in two ways: within a step, some books of one group, through the
// products of their codewords; from step to step through the gradient of x so far, which is that of what was left over.
//
// Where the slopes of 512 rows or more fit a cache beside these rows, a band has so many; else it is long, for then it
// is read from afar in any case, and adding it up in double costs as much as it has columns.
constexpr std::int64_t kBandRows = 2048;
constexpr std::int64_t kNearElements = 1 << 16;
constexpr std::int64_t kShortestBand = 512;
constexpr std::int64_t kUnitColumns = 64;
std::int64_t band_rows(std::int64_t columns) {
  const std::int64_t near = kNearElements / columns;
  return near < kShortestBand ? kBandRows : std::min(near, kBandRows);
}
// Rows of a band lie a line more than their columns apart: powers of two would share few sets of a cache.
constexpr std::int64_t kStridePadding = 16;

/// Columns, counted from the first codebook: some of one codebook, or all of a few small ones of a group.
struct ColumnUnit {
  std::int64_t group = 0, first = 0, count = 0;
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
        groups_(plan.groups()),
        step_books_(books_of_a_step(plan)),
        band_rows_(band_rows(columns_)),
        codebooks_(data.codebooks, columns_ * plan.width, plan.rows > band_rows_),
        projected_(data.projected, columns_ * plan.width, plan.rows > band_rows_),
        products_(data.products, columns_ * plan.group_columns(), plan.rows > band_rows_),
        bias_(static_cast<std::size_t>(data.bias == nullptr ? 0 : columns_)) {
    const std::int64_t rows = std::min(plan.rows, band_rows_);
    slopes_ = Scratch<T>(rows * stride_);
    if (plan.soft) probabilities_ = Scratch<T>(rows * stride_);
    if (projected_.wanted()) left_over_ = Scratch<T>((groups_ - 1) * rows * plan.width);
    reaching_ = Scratch<T>((groups_ - 1) * rows * plan.width);
    const std::int64_t together = std::max<std::int64_t>(kUnitColumns / plan.words, 1) * plan.words;
    for (std::int64_t index = 0; index < groups_; ++index) {
      const Group group = group_at(plan, index);
      for (std::int64_t books = group.first; books < group.end(); books += together) {
        const std::int64_t end = std::min(books + together, group.end());
        for (std::int64_t first = books; first < end; first += kUnitColumns) {
          units_.push_back({index, first, std::min(kUnitColumns, end - first)});
        }
      }
    }
    // Units of later books, which reach more of `products`, come first.
    std::reverse(units_.begin(), units_.end());
    make_steps(std::min(rows, tile_rows(columns_, kTileElements)));
  }

  void run() {
    const std::int64_t height = tile_rows(columns_, kTileElements);
    for (begin_ = 0; begin_ < plan_.rows; begin_ += band_rows_) {
      rows_ = std::min(band_rows_, plan_.rows - begin_);
      parallel_for(rows_, height, [&](std::int64_t from, std::int64_t to) { tile(from, to - from); });
      parallel_for(static_cast<std::int64_t>(units_.size()), 1,
                   [&](std::int64_t unit, std::int64_t) { add_to_tables(units_[static_cast<std::size_t>(unit)]); });
    }
    codebooks_.store();
    projected_.store();
    products_.store();
    for (std::size_t i = 0; i < bias_.size(); ++i) data_.bias[i] = static_cast<T>(bias_[i]);
  }

 private:
  using Rows = RowsOf<T>;

  /// A group whole where products of its codewords are smaller than codewords are wide, else as many books as make a
  /// product worth its call.
  static std::int64_t books_of_a_step(const QuantizationPlan<T>& plan) {
    const bool whole = plan.products == nullptr || plan.group_columns() - plan.words < plan.width;
    return whole ? plan.group_books : std::clamp<std::int64_t>(kUnitColumns / plan.words, 1, plan.group_books);
  }

  /// Some books of one group, whose assignments' cotangents are one product; with what all tiles multiply by.
  struct Step {
    Group group;
    std::int64_t begin = 0, end = 0;  ///< columns
    blas::RightOperand<T> codewords;  ///< transposed
    blas::RightOperand<T> projected;
    std::vector<blas::RightOperand<T>> later;  ///< products of each book but the last with those behind, transposed
  };

  /// From the last step to the first, for products of so many rows.
  void make_steps(std::int64_t rows) {
    const std::int64_t width = plan_.width;
    const bool wants_x = data_.x != nullptr || step_books_ < plan_.books;
    for (std::int64_t index = groups_ - 1; index >= 0; --index) {
      const Group group = group_at(plan_, index);
      for (std::int64_t end = group.end(); end > group.first; end = steps_.back().begin) {
        Step& step = steps_.emplace_back();
        step.group = group;
        step.begin = std::max(end - step_books_ * plan_.words, group.first);
        step.end = end;
        const std::int64_t count = end - step.begin;
        if (data_.gradient_reconstruction != nullptr || end < columns_) {
          step.codewords = {Transpose::yes, width, count, plan_.codebooks + step.begin * width, width, rows};
        }
        if (wants_x) step.projected = {Transpose::no, count, width, plan_.projected + step.begin * width, width, rows};
        if (plan_.products == nullptr) continue;
        const std::int64_t columns = plan_.group_columns();
        for (std::int64_t book = step.begin; book + plan_.words < end; book += plan_.words) {
          const std::int64_t behind = book + plan_.words;
          step.later.emplace_back(Transpose::yes, end - behind, plan_.words,
                                  plan_.products + book * columns + behind - group.first, columns, rows);
        }
      }
    }
  }

  /// Rows of the band from `first` on: in each part of slopes_ the cotangent of an assignment, then of its scores.
  void tile(std::int64_t first, std::int64_t rows) {
    const std::int64_t stride = plan_.logit_stride, row = begin_ + first;
    const T* logits = data_.logits + row * stride;
    const T* direct = at_or_null(data_.gradient_logits, row * stride);
    T* slopes = slopes_.data() + first * stride_;
    T* probabilities = plan_.soft ? probabilities_.data() + first * stride_ : nullptr;
    const Rows upstream = upstream_from(row);
    // The gradient of x: where it goes, or a place of our own when only the tables' gradients are wanted.
    const bool steps = step_books_ < plan_.books;
    const auto area = [&](bool needed) { return needed ? Scratch<T>(rows * plan_.width) : Scratch<T>(); };
    Scratch<T> own_x = area(steps && data_.x == nullptr), rest = area(step_books_ < plan_.group_books);
    const Target x{data_.x != nullptr ? data_.x + row * plan_.row_stride : own_x.data(),
                   data_.x != nullptr ? plan_.row_stride : plan_.width};
    for (const Step& step : steps_) {
      const bool last = step.end == columns_;
      Rows reaching = upstream;
      if (!last) {
        const bool of_group = step.end == step.group.end();
        T* to = of_group ? band(reaching_, step.group.book / plan_.group_books) + first * plan_.width : rest.data();
        subtract(upstream, {x.data, x.stride}, rows, plan_.width, to);
        reaching = {to, plan_.width};
      }
      const bool reached = reaching.data != nullptr;
      if (reached) {
        step.codewords.multiply(Transpose::no, rows, T{1}, reaching.data, reaching.stride, T{0}, slopes + step.begin,
                                stride_);
      }
      for (std::int64_t book = step.end - plan_.words; book >= step.begin; book -= plan_.words) {
        const std::int64_t behind = book + plan_.words;
        if (plan_.products != nullptr && behind < step.end) {
          // What the choice took off the scores behind its codebook.
          step.later[static_cast<std::size_t>((book - step.begin) / plan_.words)].multiply(
              Transpose::no, rows, T{-1}, slopes + behind, stride_, reached ? T{1} : T{0}, slopes + book, stride_);
        } else if (!reached) {
          for (std::int64_t i = 0; i < rows; ++i) std::fill_n(slopes + i * stride_ + book, plan_.words, T{0});
        }
        assignment_slope(AssignmentRows<T>{.logits = logits + book,
                                           .direct = at_or_null(direct, book),
                                           .stride = stride,
                                           .rows = rows,
                                           .words = plan_.words},
                         slopes + book, at_or_null(probabilities, book), stride_, plan_.inverse_temperature);
      }
      if (x.data == nullptr) continue;
      step.projected.multiply(Transpose::no, rows, T{1}, slopes + step.begin, stride_, last ? T{0} : T{1}, x.data,
                              x.stride);
    }
    if (projected_.wanted()) find_left_over(first, rows);
  }

  /// What the groups before each but the first left over of the tile's rows.
  void find_left_over(std::int64_t first, std::int64_t rows) {
    if (groups_ == 1) return;
    const std::int64_t width = plan_.width, row = begin_ + first;
    Scratch<T> sum(rows * width);
    for (std::int64_t index = 0; index + 1 < groups_; ++index) {
      const Group group = group_at(plan_, index);
      const T* words = plan_.codebooks + group.first * width;
      if (plan_.soft) {
        blas::gemm(Transpose::no, Transpose::no, rows, width, group.columns, T{1},
                   probabilities_.data() + first * stride_ + group.first, stride_, words, width,
                   index == 0 ? T{0} : T{1}, sum.data(), width);
      } else {
        sum_codewords(words, code_rows(plan_, group, data_.codes + row * plan_.code_stride, rows), sum.data(), width,
                      index > 0);
      }
      subtract({plan_.x + row * plan_.row_stride, plan_.row_stride}, {sum.data(), width}, rows, width,
               band(left_over_, index) + first * width);
    }
  }

  /// The rows of one group, of those that all groups but one have.
  T* band(Scratch<T>& of_groups, std::int64_t index) const {
    return of_groups.data() + index * (of_groups.size() / (groups_ - 1));
  }

  Rows upstream_from(std::int64_t row) const {
    return {at_or_null(data_.gradient_reconstruction, row * plan_.row_stride), plan_.row_stride};
  }

  struct Target {
    T* data;
    std::int64_t stride;
  };

  /// The band's part of all tables' gradients that the unit's columns have.
  void add_to_tables(const ColumnUnit& unit) {
    const std::int64_t width = plan_.width;
    const Group group = group_at(plan_, unit.group);
    const Rows reaching = unit.group + 1 == groups_ ? upstream_from(begin_) : Rows{band(reaching_, unit.group), width};
    const T* slopes = slopes_.data() + unit.first;
    Scratch<T> part(unit.count * std::max(width, products_.wanted() ? plan_.group_columns() : 0));
    if (projected_.wanted()) {
      const Rows encoded = unit.group == 0 ? Rows{plan_.x + begin_ * plan_.row_stride, plan_.row_stride}
                                           : Rows{band(left_over_, unit.group - 1), width};
      blas::gemm(Transpose::yes, Transpose::no, unit.count, width, rows_, T{1}, slopes, stride_, encoded.data,
                 encoded.stride, T{0}, part.data(), width);
      projected_.add(part.data(), unit.count, width, unit.first * width, width);
    }
    if (!bias_.empty()) add_column_sums(bias_.data() + unit.first, slopes, rows_, unit.count, stride_);
    for (std::int64_t first = unit.first, end = unit.first + unit.count; first < end;) {
      const std::int64_t book = first / plan_.words, next = std::min((book + 1) * plan_.words, end);
      const BookColumns book_columns{book, first, next - first};
      if (codebooks_.wanted() && reaching.data != nullptr) {
        sum_reaching(book_columns, reaching, part.data());
        codebooks_.add(part.data(), book_columns.count, width, first * width, width);
      }
      if (products_.wanted() && book > group.book) {
        sum_later(book_columns, group, part.data());
        const std::int64_t columns = plan_.group_columns();
        products_.add(part.data(), (book - group.book) * plan_.words, book_columns.count,
                      group.first * columns + first - group.first, columns);
      }
      first = next;
    }
  }

  /// part [count, width]: of what reaches the choices of rows, the rows that chose each of these codewords.
  void sum_reaching(const BookColumns& book_columns, const Rows& reaching, T* part) const {
    const std::int64_t width = plan_.width, first = book_columns.first - book_columns.book * plan_.words;
    if (plan_.soft) {
      blas::gemm(Transpose::yes, Transpose::no, book_columns.count, width, rows_, T{1},
                 probabilities_.data() + book_columns.first, stride_, reaching.data, reaching.stride, T{0}, part,
                 width);
      return;
    }
    std::fill_n(part, book_columns.count * width, T{0});
    const Code* codes = data_.codes + begin_ * plan_.code_stride + book_columns.book;
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::int64_t word = static_cast<std::int64_t>(codes[row * plan_.code_stride]) - first;
      if (word < 0 || word >= book_columns.count) continue;
      add_into(part + word * width, reaching.data + row * reaching.stride, width);
    }
  }

  /// part [codewords of earlier books of the group, count]: what the choice of each took off these scores.
  void sum_later(const BookColumns& book_columns, const Group& group, T* part) const {
    const std::int64_t books = book_columns.book - group.book, earlier = books * plan_.words;
    const T* slopes = slopes_.data() + book_columns.first;
    if (plan_.soft) {
      blas::gemm(Transpose::yes, Transpose::no, earlier, book_columns.count, rows_, T{-1},
                 probabilities_.data() + group.first, stride_, slopes, stride_, T{0}, part, book_columns.count);
      return;
    }
    std::fill_n(part, earlier * book_columns.count, T{0});
    const CodeRows<Code> codes{data_.codes + begin_ * plan_.code_stride + group.book,
                               plan_.code_stride,
                               rows_,
                               books,
                               plan_.words,
                               book_columns.count};
    scatter_to_codewords(slopes, stride_, T{-1}, codes, part);
  }

  const QuantizationPlan<T>& plan_;
  const QuantizationBackward<T, Code>& data_;
  std::int64_t columns_, stride_;  // of rows of slopes_ and probabilities_
  std::int64_t groups_, step_books_, band_rows_;
  BandedSum<T> codebooks_, projected_, products_;
  std::vector<double> bias_;
  std::vector<ColumnUnit> units_;
  std::vector<Step> steps_;
  std::int64_t begin_ = 0, rows_ = 0;  // the band at work
  Scratch<T> slopes_, probabilities_;  // [rows, stride]
  Scratch<T> left_over_;               // [groups - 1, rows, width] what the groups after the first encoded
  Scratch<T> reaching_;  // [groups - 1, rows, width] what reached the choices of the groups before the last
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
template void quantize_backward(const QuantizationPlan<float>&, const QuantizationBackward<float, std::uint8_t>&);
template void quantize_backward(const QuantizationPlan<float>&, const QuantizationBackward<float, std::int32_t>&);
template void quantize_backward(const QuantizationPlan<double>&, const QuantizationBackward<double, std::uint8_t>&);
template void quantize_backward(const QuantizationPlan<double>&, const QuantizationBackward<double, std::int32_t>&);

}  // namespace tally::kernels
