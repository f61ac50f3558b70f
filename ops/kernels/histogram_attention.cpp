#include "tally/ops/kernels/histogram_attention.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/core/right_operand.h"
#include "tally/ops/kernels/codeword_assignment.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

// All sizes are constants of shapes, never of the machine: they decide the order of sums.
/// Tiles that one task takes, and after which sums of f32 move on to double.
constexpr std::int64_t kGrain = 8;
/// Rows of a tile whose part of the gradient of values is summed on its own: a chain of all of them would lose digits.
constexpr std::int64_t kSummedRows = 64;
/// Tasks of backward, each with sums of its own for tables and values.
constexpr std::int64_t kTasks = 16;

Sights sights_of(bool causal) { return {Sight::inclusive, causal ? Sight::none : Sight::others}; }
/// Of the transposed scan: which rows see this one.
Sights sights_back(bool causal) {
  return causal ? Sights{Sight::none, Sight::inclusive} : Sights{Sight::inclusive, Sight::others};
}

std::int64_t round_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

/// Copies [rows, codebooks, words] to padded rows.
template <class T>
void pad(const T* from, std::int64_t rows, std::int64_t words, std::int64_t padded, T* to) {
  for (std::int64_t i = 0; i < rows; ++i) {
    std::copy_n(from + i * words, words, to + i * padded);
    std::fill(to + i * padded + words, to + (i + 1) * padded, T{0});
  }
}

/// What forward and backward make of a problem before they meet a tile.
template <class T>
class Pass {
 public:
  Pass(const HistogramProblem<T>& problem, bool moments) : p(problem) {
    tables.codebooks = p.codebooks;
    tables.words = p.words;
    tables.padded = round_up(p.words, kCodewordPadding);
    tables.scale = p.scale;
    tables.products = p.tables;
    stride = tables.stride();
    exponentials_ = Tensor({p.codebooks, p.words, tables.padded}, dtype_of<T>);
    T* exponentials = exponentials_.template mutable_data<T>();
    tables.exponentials = exponentials;
    parallel_for(p.codebooks, 1, [&](std::int64_t b, std::int64_t) {
      tabulate_exponentials(p.tables + b * p.words * p.words, p.words, tables.padded, p.scale,
                            exponentials + b * p.words * tables.padded);
    });
    values = padded_rows(p.values, p.codebooks, p.words * p.width, tables.padded * p.width, values_);
    // A window that shows everything is none.
    std::int64_t longest = 0;
    for (std::size_t i = 0; i + 1 < p.bounds.size(); ++i) longest = std::max(longest, p.bounds[i + 1] - p.bounds[i]);
    cuts = cut_sequences(p.bounds, p.window < longest ? p.window : 0, kHistogramTileRows);
    for (const Tile& tile : cuts.tiles) rows = std::max(rows, tile.rows);
    const std::int64_t total = p.bounds.empty() ? 0 : p.bounds.back();
    TallySource<T> source;
    if (p.dense != nullptr) {
      source.dense = padded_rows(p.dense, total * p.codebooks, p.words, tables.padded, dense_);
    } else if (p.logits != nullptr) {
      source.logits = p.logits;
    } else {
      source.codes = p.codes;
    }
    in_registers_ = source.codes.codebooks > 0 && p.causal && cuts.window == 0;
    scan.emplace(cuts, tables, source, sights_of(p.causal), p.rate, moments);
    scan->prepare();
  }

  /// Buffers of one task.
  struct Buffers {
    Tensor storage;
    T* probabilities = nullptr;  ///< [rows, stride]
    T* moments = nullptr;        ///< [rows, stride]
    T* gradients = nullptr;      ///< [rows, stride]
    T* counts = nullptr;         ///< [rows, 2 stride]
    Normalizers<T> normalizers;
    ScanBuffers<T> scan;
  };
  Buffers buffers(bool backward) const {
    Buffers result;
    result.scan = scan->buffers();
    const bool moments = scan->width() != stride;
    const std::int64_t tile = rows * stride, normalizers = rows * p.codebooks;
    std::int64_t wanted = tile + 2 * normalizers;
    if (backward) wanted += tile;
    if (moments) wanted += 3 * tile;
    result.storage = Tensor({wanted}, dtype_of<T>);
    T* next = result.storage.template mutable_data<T>();
    const auto take = [&](std::int64_t n) { return std::exchange(next, next + n); };
    result.probabilities = take(tile);
    if (backward) result.gradients = take(tile);
    if (moments) {
      result.moments = take(tile);
      result.counts = take(2 * tile);
    }
    result.normalizers.inverse = take(normalizers);
    result.normalizers.log_sum = take(normalizers);
    return result;
  }

  /// Probabilities of a tile, and the moments of its counts where the scan has them.
  void probabilities(const Tile& tile, Buffers& buffers) const {
    const HistogramScan<T>& tally = *scan;
    const std::int64_t width = tally.width();
    for (std::int64_t s = tile.first_segment; s < tile.end_segment; ++s) {
      const Segment& segment = cuts.segments[static_cast<std::size_t>(s)];
      const std::int64_t at = segment.row - tile.row;
      T* to = buffers.probabilities + at * stride;
      if (in_registers_) {
        const Normalizers<T> part{buffers.normalizers.inverse + at * p.codebooks,
                                  buffers.normalizers.log_sum + at * p.codebooks};
        causal_probabilities(tables, p.codes.from(segment.row), segment.rows, tally.before(segment), tally.powers(), to,
                             part);
      } else if (width == stride) {
        tally.counts(segment, to, buffers.scan);
      }
      if (width == stride) continue;
      tally.counts(segment, buffers.counts, buffers.scan);
      for (std::int64_t r = 0; r < segment.rows; ++r) {
        const T* row = buffers.counts + r * width;
        if (!in_registers_) std::copy_n(row, stride, to + r * stride);
        std::copy_n(row + stride, stride, buffers.moments + (at + r) * stride);
      }
    }
    if (in_registers_) return;
    histogram_probabilities(tables, p.codes.from(tile.row), tile.rows, buffers.probabilities, buffers.normalizers);
  }

  /// The rows themselves where they are whole vectors, else a padded copy in `storage`.
  const T* padded_rows(const T* from, std::int64_t count, std::int64_t size, std::int64_t padded_size,
                       Tensor& storage) const {
    if (size == padded_size) return from;
    storage = Tensor({count, padded_size}, dtype_of<T>);
    T* to = storage.template mutable_data<T>();
    pad(from, count, size, padded_size, to);
    return to;
  }

  const HistogramProblem<T>& p;
  std::int64_t rows = 0;  ///< of a tile, at most
  std::int64_t stride = 0;
  CodewordTables<T> tables;
  const T* values = nullptr;  ///< [stride, width]
  Cuts cuts;
  std::optional<HistogramScan<T>> scan;

 private:
  Tensor exponentials_, values_, dense_;
  bool in_registers_ = false;
};

/// Sums of one task of backward: f32 over a few tiles, then double.
template <class T>
struct Sums {
  Sums(std::int64_t table_elements, std::int64_t value_elements)
      : table_part(Tensor::zeros({table_elements}, dtype_of<T>)),
        value_part(Tensor::zeros({value_elements}, dtype_of<T>)),
        tables({table_elements}, DType::f64),
        values({value_elements}, DType::f64) {}

  void fold() {
    fold(table_part, tables);
    fold(value_part, values);
    empty_ = false;
  }

  Tensor table_part, value_part;
  Tensor tables, values;  ///< written by the first fold()
  double rate = 0;

 private:
  void fold(Tensor& part, Tensor& sum) const {
    T* from = part.template mutable_data<T>();
    double* to = sum.mutable_data<double>();
    for (std::int64_t i = 0; i < part.numel(); ++i) to[i] = static_cast<double>(from[i]) + (empty_ ? 0.0 : to[i]);
    std::fill_n(from, part.numel(), T{0});
  }

  bool empty_ = true;
};

template <class T>
class BackwardPass {
 public:
  BackwardPass(const HistogramProblem<T>& problem, const HistogramGradients<T>& gradients)
      : p_(problem), g_(gradients), pass_(problem, gradients.rate != nullptr) {
    if (g_.tables == nullptr && g_.rate == nullptr && g_.logit_gradients == nullptr) return;
    values_ = blas::RightOperand<T>(Transpose::yes, p_.width, pass_.stride, pass_.values, p_.width, pass_.rows);
  }

  void run() {
    const auto tiles = static_cast<std::int64_t>(pass_.cuts.tiles.size());
    const std::int64_t total = p_.bounds.empty() ? 0 : p_.bounds.back(), stride = pass_.stride;
    if (g_.logit_gradients != nullptr) {
      // Gradients of counts take the place of those of the logits, unless a window needs them for longer.
      if (pass_.cuts.window == 0 && p_.words == pass_.tables.padded) {
        count_gradients_ = g_.logit_gradients;
      } else {
        count_storage_ = Tensor({total, stride}, dtype_of<T>);
        count_gradients_ = count_storage_.template mutable_data<T>();
      }
      TallySource<T> source;
      source.dense = count_gradients_;
      back_.emplace(pass_.cuts, pass_.tables, source, sights_back(p_.causal), p_.rate, false);
    }
    const std::int64_t grain = std::max(kGrain, block_count(tiles, kTasks));
    std::vector<Sums<T>> sums;
    for (std::int64_t i = 0; i < block_count(tiles, grain); ++i) {
      sums.emplace_back(g_.tables == nullptr ? 0 : p_.codebooks * p_.words * pass_.tables.padded,
                        g_.values == nullptr ? 0 : stride * p_.width);
    }
    parallel_for(tiles, grain, [&](std::int64_t begin, std::int64_t end) {
      Sums<T>& part = sums[static_cast<std::size_t>(begin / grain)];
      typename Pass<T>::Buffers buffers = pass_.buffers(true);
      for (std::int64_t i = begin; i < end; ++i) {
        tile(pass_.cuts.tiles[static_cast<std::size_t>(i)], buffers, part);
        if ((i + 1 - begin) % kGrain == 0 || i + 1 == end) part.fold();
      }
    });
    finish(sums);
    if (g_.logit_gradients != nullptr) assignments();
  }

 private:
  void tile(const Tile& tile, typename Pass<T>::Buffers& buffers, Sums<T>& sums) {
    const std::int64_t stride = pass_.stride, width = p_.width;
    const T* gradient = g_.output + tile.row * width;
    pass_.probabilities(tile, buffers);
    if (g_.values != nullptr) {
      T* to = sums.value_part.template mutable_data<T>();
      for (std::int64_t r = 0; r < tile.rows; r += kSummedRows) {
        blas::gemm(Transpose::yes, Transpose::no, stride, width, std::min(kSummedRows, tile.rows - r), T{1},
                   buffers.probabilities + r * stride, stride, gradient + r * width, width, T{1}, to, width);
      }
    }
    if (g_.tables == nullptr && g_.rate == nullptr && count_gradients_ == nullptr) return;
    T* counts = count_gradients_ == nullptr ? buffers.gradients : count_gradients_ + tile.row * stride;
    values_.multiply(Transpose::no, tile.rows, T{1}, gradient, width, T{0}, counts, stride);
    histogram_probabilities_backward(pass_.tables, p_.codes.from(tile.row), tile.rows, buffers.probabilities,
                                     buffers.normalizers, counts,
                                     g_.tables == nullptr ? nullptr : sums.table_part.template mutable_data<T>());
    for (std::int64_t s = tile.first_segment; back_ && s < tile.end_segment; ++s) {
      back_->take(pass_.cuts.segments[static_cast<std::size_t>(s)], buffers.scan);
    }
    if (g_.rate == nullptr) return;
    for (std::int64_t r = 0; r < tile.rows; ++r) {
      sums.rate -= static_cast<double>(dot(counts + r * stride, buffers.moments + r * stride, stride));
    }
  }

  /// Adds up the tasks' sums in their order.
  void finish(const std::vector<Sums<T>>& sums) const {
    const std::int64_t words = p_.words, padded = pass_.tables.padded;
    const auto fold = [&](Tensor Sums<T>::*member, std::int64_t rows, std::int64_t size, std::int64_t padded_size,
                          double factor, T* to) {
      if (to == nullptr) return;
      std::vector<const double*> parts;
      for (const Sums<T>& each : sums) parts.push_back((each.*member).template data<double>());
      parallel_for(rows, std::max<std::int64_t>(1, 4096 / std::max<std::int64_t>(size, 1)),
                   [&](std::int64_t begin, std::int64_t end) {
                     std::vector<double> total(static_cast<std::size_t>(size));
                     for (std::int64_t r = begin; r < end; ++r) {
                       std::fill(total.begin(), total.end(), 0.0);
                       for (const double* part : parts) kernels::add_into(total.data(), part + r * padded_size, size);
                       for (std::int64_t i = 0; i < size; ++i) {
                         to[r * size + i] = static_cast<T>(factor * total[static_cast<std::size_t>(i)]);
                       }
                     }
                   });
    };
    fold(&Sums<T>::tables, p_.codebooks * words, words, padded, p_.scale, g_.tables);
    fold(&Sums<T>::values, p_.codebooks, words * p_.width, padded * p_.width, 1, g_.values);
    if (g_.rate == nullptr) return;
    *g_.rate = 0;
    for (const Sums<T>& each : sums) *g_.rate += each.rate;
  }

  /// From gradients of counts to those of the assignments, by the transposed scan, to those of their logits.
  void assignments() {
    const std::int64_t stride = pass_.stride, row = p_.codebooks * p_.words;
    back_->join();
    // A row is read before it is written where each is tallied from the last to the first.
    const bool in_place = p_.causal && pass_.cuts.window == 0 && p_.words == pass_.tables.padded;
    const auto segments = static_cast<std::int64_t>(pass_.cuts.segments.size());
    parallel_for(segments, kGrain, [&](std::int64_t begin, std::int64_t end) {
      ScanBuffers<T> scratch = back_->buffers();
      Tensor storage({in_place ? 0 : 2, pass_.rows, stride}, dtype_of<T>);
      T *gradients = storage.template mutable_data<T>(), *soft = gradients + pass_.rows * stride;
      for (std::int64_t i = begin; i < end; ++i) {
        const Segment& segment = pass_.cuts.segments[static_cast<std::size_t>(i)];
        const T* logits = g_.logits + segment.row * row;
        T* out = g_.logit_gradients + segment.row * row;
        if (in_place) {
          back_->counts(segment, out, scratch);
          assignment_slope(
              AssignmentRows<T>{
                  .logits = logits, .stride = p_.words, .rows = segment.rows * p_.codebooks, .words = p_.words},
              out, static_cast<T*>(nullptr), p_.words, T{1});
          continue;
        }
        back_->counts(segment, gradients, scratch);
        codeword_softmax(pass_.tables, logits, segment.rows, soft);
        codeword_softmax_backward(pass_.tables, soft, gradients, segment.rows, out);
      }
    });
  }

  const HistogramProblem<T>& p_;
  const HistogramGradients<T>& g_;
  Pass<T> pass_;
  Tensor count_storage_;
  T* count_gradients_ = nullptr;  ///< [T, stride]
  blas::RightOperand<T> values_;  ///< transposed
  std::optional<HistogramScan<T>> back_;
};

}  // namespace

template <class T>
void histogram_attention_forward(const HistogramProblem<T>& problem, T* output) {
  const Pass<T> pass(problem, false);
  const blas::RightOperand<T> values(Transpose::no, pass.stride, problem.width, pass.values, problem.width, pass.rows);
  parallel_for(static_cast<std::int64_t>(pass.cuts.tiles.size()), kGrain, [&](std::int64_t begin, std::int64_t end) {
    typename Pass<T>::Buffers buffers = pass.buffers(false);
    for (std::int64_t i = begin; i < end; ++i) {
      const Tile& tile = pass.cuts.tiles[static_cast<std::size_t>(i)];
      pass.probabilities(tile, buffers);
      values.multiply(Transpose::no, tile.rows, T{1}, buffers.probabilities, pass.stride, T{0},
                      output + tile.row * problem.width, problem.width);
    }
  });
}

template <class T>
void histogram_attention_backward(const HistogramProblem<T>& problem, const HistogramGradients<T>& gradients) {
  BackwardPass<T>(problem, gradients).run();
}

template void histogram_attention_forward(const HistogramProblem<float>&, float*);
template void histogram_attention_forward(const HistogramProblem<double>&, double*);
template void histogram_attention_backward(const HistogramProblem<float>&, const HistogramGradients<float>&);
template void histogram_attention_backward(const HistogramProblem<double>&, const HistogramGradients<double>&);

}  // namespace tally::kernels
