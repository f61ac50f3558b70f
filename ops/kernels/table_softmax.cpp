#include "tally/ops/kernels/table_softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/core/right_operand.h"
#include "tally/core/tensor.h"
#include "tally/ops/kernels/column_exponentials.h"

// How the loss and its gradients are computed in one pass.
//
// Tokens are taken kRowTile at a time and the table in blocks of kItemBlock rows, so that a block of scores stays in
// the L2 cache between the product that makes it, the exponentials and the product that uses it. With e = exp(s - m), m
// a row's maximum within a block, and the loss a sum over tokens with weights w, the gradients are
//   dx_t     = w_t (sum_i p_ti table_i - table_target)      p_ti = e_ti exp(m_t,block - log_sum_t)
//   dtable_i = sum_t w_t p_ti x_t - (x_t where i is the target of t)
// A block's part of dx is e table, scaled when the row's log-sum-exp is known: row by row, that costs nothing. dtable
// needs the log-sum-exp first, so the blocks of e of one row tile are kept until all are there (the tile, at most
// kTileBytes), and dtable_block += e^T (x scaled by w exp(m - log_sum)). That is three products instead of the four of
// a separate backward. A block's part of dtable is added when the next tile comes to the block, whose e then takes the
// place of the last in the cache, not in memory. Tables so large that kSmallestRowTile rows of e pass kTileBytes
// recompute e instead: four products, but longer tiles.
//
// Scores are kept with the items as rows. So the table, its gradient and e are read and written in the order in which
// they stand: what the three products pack is only the tile's rows of x.
//
// All tile sizes were measured.

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t kRowTile = 128;
constexpr std::int64_t kSmallestRowTile = 64;
constexpr std::int64_t kItemBlock = 512;
constexpr std::int64_t kTileBytes = std::int64_t{16} << 20;
/// Item blocks whose parts of dx wait to be folded: bounds that memory for huge tables.
constexpr std::int64_t kBlocksPerFold = 64;
/// Tokens that add to dtable before the sum moves to the total (in whole row tiles): sums over very many tokens keep
/// their accuracy. The sum apart is a second table, so batches of ordinary size do without.
constexpr std::int64_t kTokensPerGroup = 8192;

template <class T>
class TableSoftmaxPass {
 public:
  TableSoftmaxPass(const TableSoftmax<T>& problem, const TableSoftmaxGradients<T>& gradients)
      : p_(problem), g_(gradients), blocks_(block_count(p_.items, kItemBlock)) {
    const auto counted = static_cast<std::int64_t>(p_.tokens.size());
    const bool wants_table = g_.table != nullptr || g_.bias != nullptr;
    const auto fits = [&](std::int64_t rows) { return rows * p_.items * std::int64_t{sizeof(T)} <= kTileBytes; };
    rows_ = std::min(kRowTile, counted);
    if (wants_table && !fits(rows_) && fits(kSmallestRowTile)) rows_ = kSmallestRowTile;
    if (wants_table && fits(rows_)) kept_ = buffer({rows_, p_.items}, kept_storage_);
    tile_.x = buffer({rows_, p_.width}, x_storage_[0]);
    previous_.x = buffer({rows_, p_.width}, x_storage_[1]);
    if (g_.x != nullptr) {
      parts_ = buffer({std::min(blocks_, kBlocksPerFold), rows_, p_.width}, parts_storage_);
      folded_ = buffer({rows_, p_.width}, folded_storage_);
    }
    table_sum_ = g_.table;
    tiles_per_group_ = kTokensPerGroup / std::max<std::int64_t>(rows_, 1);
    if (g_.table != nullptr && counted > tiles_per_group_ * rows_) {
      group_storage_ = Tensor::zeros({p_.items, p_.width}, dtype_of<T>);
      table_sum_ = group_storage_.template mutable_data<T>();
    }
    maxima_.resize(static_cast<std::size_t>(blocks_ * rows_));
    factors_.resize(maxima_.size());
    sums_.resize(maxima_.size());
    rights_.resize(static_cast<std::size_t>(rows_));
    largest_.resize(rights_.size());
  }

  double run() {
    const auto counted = static_cast<std::int64_t>(p_.tokens.size());
    double loss = 0;
    for (std::int64_t first = 0; first < counted; first += rows_) {
      tile_.first = first;
      tile_.n = std::min(rows_, counted - first);
      for (std::int64_t r = 0; r < tile_.n; ++r) {
        std::copy_n(p_.x + token(tile_, r) * p_.width, p_.width, tile_.x + r * p_.width);
      }
      tile_.rows = {Transpose::yes, p_.width, tile_.n, tile_.x, p_.width, kItemBlock};
      loss += score_tile();
      if (g_.x != nullptr) finish_x();
      std::swap(tile_, previous_);
      if (kept_ == nullptr) add_previous();
    }
    if (kept_ != nullptr) add_previous();
    if (table_sum_ != g_.table) fold_group();
    return loss;
  }

 private:
  /// Rows of counted tokens that are taken together.
  struct Tile {
    std::int64_t first = 0, n = 0;  ///< its first counted token, and how many
    T* x = nullptr;                 ///< [n, width] their rows of x
    blas::RightOperand<T> rows;     ///< x^T
  };

  static T* buffer(const Shape& shape, Tensor& storage) {
    storage = Tensor(shape, dtype_of<T>);
    return storage.template mutable_data<T>();
  }

  static std::size_t counted(const Tile& tile, std::int64_t r) { return static_cast<std::size_t>(tile.first + r); }
  std::int64_t token(const Tile& tile, std::int64_t r) const { return p_.tokens[counted(tile, r)]; }
  double weight(const Tile& tile, std::int64_t r) const { return p_.weights[counted(tile, r)]; }
  bool has_target_scores() const { return p_.targets.empty(); }
  /// Is the target of row r among the items [from, to)?
  bool targets(const Tile& tile, std::int64_t r, std::int64_t from, std::int64_t to) const {
    return !has_target_scores() && p_.targets[counted(tile, r)] >= from && p_.targets[counted(tile, r)] < to;
  }
  std::size_t statistic(std::int64_t block, std::int64_t r) const {
    return static_cast<std::size_t>(block * rows_ + r);
  }

  /// out [to - from, rows] = scores of the tile's rows with items [from, to).
  void scores(const Tile& tile, std::int64_t from, std::int64_t to, T* out) const {
    if (p_.bias != nullptr) {
      for (std::int64_t item = from; item < to; ++item) std::fill_n(out + (item - from) * rows_, tile.n, p_.bias[item]);
    }
    tile.rows.multiply(Transpose::no, to - from, T{1}, p_.table + from * p_.width, p_.width,
                       p_.bias != nullptr ? T{1} : T{0}, out, rows_);
    if (p_.excluded_bounds.empty()) return;
    for (std::int64_t r = 0; r < tile.n; ++r) {
      const auto begin = p_.excluded_bounds[counted(tile, r)], end = p_.excluded_bounds[counted(tile, r) + 1];
      for (const std::int64_t item :
           p_.excluded.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))) {
        if (item >= from && item < to) out[(item - from) * rows_ + r] = -std::numeric_limits<T>::infinity();
      }
    }
  }

  /// What is computed with after items [..., to).
  Upcoming upcoming(std::int64_t to) const {
    const std::int64_t from = to < p_.items ? to : 0, items = std::min(kItemBlock, p_.items - from);
    const auto part = [&](const T* array, std::int64_t width) -> Upcoming::Part {
      if (array == nullptr) return {};
      return {reinterpret_cast<const char*>(array + from * width), items * width * std::int64_t{sizeof(T)}};
    };
    return {{part(kept_, rows_), part(table_sum_, p_.width), part(p_.table, p_.width)}};
  }

  void score_block(std::int64_t from, std::int64_t to) {
    const std::int64_t items = to - from, block = from / kItemBlock;
    Tensor scratch;
    T* e = kept_ != nullptr ? kept_ + from * rows_ : buffer({items, rows_}, scratch);
    scores(tile_, from, to, e);
    for (std::int64_t r = 0; r < tile_.n; ++r) {
      if (!targets(tile_, r, from, to)) continue;
      rights_[static_cast<std::size_t>(r)] = e[(p_.targets[counted(tile_, r)] - from) * rows_ + r];
    }
    column_exponentials(e, items, tile_.n, rows_, &maxima_[statistic(block, 0)], &sums_[statistic(block, 0)],
                        upcoming(to));
    if (g_.x == nullptr) return;
    blas::gemm(Transpose::yes, Transpose::no, tile_.n, p_.width, items, T{1}, e, rows_, p_.table + from * p_.width,
               p_.width, T{0}, parts_ + block % kBlocksPerFold * rows_ * p_.width, p_.width);
  }

  /// Scores, log-sum-exps and the unscaled dx of the tile, and what the previous one adds to dtable and dbias; returns
  /// the tile's loss.
  double score_tile() {
    std::fill(largest_.begin(), largest_.end(), -std::numeric_limits<double>::infinity());
    if (g_.x != nullptr) std::fill_n(folded_, tile_.n * p_.width, T{0});
    for (std::int64_t begin = 0; begin < blocks_; begin += kBlocksPerFold) {
      const std::int64_t end = std::min(begin + kBlocksPerFold, blocks_);
      parallel_for(end - begin, 1, [&](std::int64_t block, std::int64_t) {
        const std::int64_t from = (begin + block) * kItemBlock, to = std::min(from + kItemBlock, p_.items);
        if (kept_ != nullptr && previous_.n > 0) add_table_block(from, to);
        score_block(from, to);
      });
      parallel_for(tile_.n, 16, [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t r = from; r < to; ++r) fold_row(r, begin, end);
      });
    }
    if (kept_ != nullptr && previous_.n > 0) end_previous();
    double loss = 0;
    for (std::int64_t r = 0; r < tile_.n; ++r) loss += normalise(r);
    return loss;
  }

  /// Brings what row r holds so far, and the parts of blocks [begin, end), to their common maximum.
  void fold_row(std::int64_t r, std::int64_t begin, std::int64_t end) {
    double& largest = largest_[static_cast<std::size_t>(r)];
    const double before = largest;
    for (std::int64_t b = begin; b < end; ++b) largest = std::max<double>(largest, maxima_[statistic(b, r)]);
    if (g_.x == nullptr || largest == -std::numeric_limits<double>::infinity()) return;
    T* out = folded_ + r * p_.width;
    if (begin > 0) scale(out, static_cast<T>(std::exp(before - largest)), p_.width);
    for (std::int64_t b = begin; b < end; ++b) {
      axpy(out, static_cast<T>(std::exp(maxima_[statistic(b, r)] - largest)),
           parts_ + (b % kBlocksPerFold * rows_ + r) * p_.width, p_.width);
    }
  }

  /// Log-sum-exp of row r, hence the factor of each of its blocks; returns the loss of the token.
  double normalise(std::int64_t r) {
    double& largest = largest_[static_cast<std::size_t>(r)];
    const double columns = largest;
    const double right = has_target_scores() ? p_.target_scores[counted(tile_, r)]
                                             : static_cast<double>(rights_[static_cast<std::size_t>(r)]);
    if (has_target_scores()) largest = std::max(largest, right);
    double sum = has_target_scores() ? std::exp(right - largest) : 0;
    for (std::int64_t b = 0; b < blocks_; ++b) {
      double& of_block = sums_[statistic(b, r)];
      const double scale = std::exp(maxima_[statistic(b, r)] - largest);
      if (of_block != 0) sum += of_block * scale;
      of_block = scale;
    }
    const double log_sum = largest + std::log(sum), factor = weight(tile_, r) * std::exp(largest - log_sum);
    for (std::int64_t b = 0; b < blocks_; ++b) {
      factors_[statistic(b, r)] = static_cast<T>(factor * sums_[statistic(b, r)]);
    }
    largest = weight(tile_, r) * std::exp(columns - log_sum);  // the factor of the folded dx
    if (g_.target_scores != nullptr)
      g_.target_scores[counted(tile_, r)] = weight(tile_, r) * std::expm1(right - log_sum);
    return weight(tile_, r) * (log_sum - right);
  }

  void finish_x() {
    parallel_for(tile_.n, 16, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t r = from; r < to; ++r) {
        T* out = g_.x + token(tile_, r) * p_.width;
        std::copy_n(folded_ + r * p_.width, p_.width, out);
        scale(out, static_cast<T>(largest_[static_cast<std::size_t>(r)]), p_.width);
        if (has_target_scores()) continue;
        axpy(out, static_cast<T>(-weight(tile_, r)), p_.table + p_.targets[counted(tile_, r)] * p_.width, p_.width);
      }
    });
  }

  /// Adds the previous tile's part of dtable and dbias for items [from, to).
  void add_table_block(std::int64_t from, std::int64_t to) {
    const Tile& tile = previous_;
    const std::int64_t items = to - from, block = from / kItemBlock;
    Tensor scratch, scaled_storage;
    T* e = kept_ != nullptr ? kept_ + from * rows_ : buffer({items, rows_}, scratch);
    if (kept_ == nullptr) {
      scores(tile, from, to, e);
      column_exponentials(e, items, tile.n, rows_, &maxima_[statistic(block, 0)], nullptr);
    }
    const T* factors = factors_.data() + block * rows_;
    if (g_.table != nullptr) {
      T* scaled = buffer({tile.n, p_.width}, scaled_storage);
      std::copy_n(tile.x, tile.n * p_.width, scaled);
      for (std::int64_t r = 0; r < tile.n; ++r) scale(scaled + r * p_.width, factors[r], p_.width);
      blas::gemm(Transpose::no, Transpose::no, items, p_.width, tile.n, T{1}, e, rows_, scaled, p_.width, T{1},
                 table_sum_ + from * p_.width, p_.width);
    }
    if (g_.bias != nullptr) blas::gemv(Transpose::no, items, tile.n, T{1}, e, rows_, factors, T{1}, g_.bias + from);
    for (std::int64_t r = 0; r < tile.n; ++r) {
      if (!targets(tile, r, from, to)) continue;
      const std::int64_t item = p_.targets[counted(tile, r)];
      const T factor = static_cast<T>(-weight(tile, r));
      if (g_.table != nullptr) axpy(table_sum_ + item * p_.width, factor, tile.x + r * p_.width, p_.width);
      if (g_.bias != nullptr) g_.bias[item] += factor;
    }
  }

  void add_previous() {
    if (previous_.n == 0) return;
    if (g_.table != nullptr || g_.bias != nullptr) {
      parallel_for(p_.items, kItemBlock, [&](std::int64_t from, std::int64_t to) { add_table_block(from, to); });
    }
    end_previous();
  }

  /// After all of it was added.
  void end_previous() {
    if (table_sum_ != g_.table && ++added_ % tiles_per_group_ == 0) fold_group();
  }

  void fold_group() {
    parallel_for(p_.items * p_.width, 1 << 15, [&](std::int64_t from, std::int64_t to) {
      add_into(g_.table + from, table_sum_ + from, to - from);
      std::fill(table_sum_ + from, table_sum_ + to, T{0});
    });
  }

  const TableSoftmax<T>& p_;
  const TableSoftmaxGradients<T>& g_;
  const std::int64_t blocks_;
  std::int64_t rows_ = 0;  // of a tile
  std::int64_t tiles_per_group_ = 1;
  std::int64_t added_ = 0;  // tiles, to table_sum_
  Tile tile_, previous_;    // at work, and the one before: what it adds to dtable and dbias is still to come

  T* kept_ = nullptr;       // e of the whole tile, block by block: [items, rows]; null: recompute
  T* parts_ = nullptr;      // [kBlocksPerFold, rows, width] e table of each block
  T* folded_ = nullptr;     // [rows, width] their sum
  T* table_sum_ = nullptr;  // [items, width] where dtable is summed
  Tensor kept_storage_, x_storage_[2], parts_storage_, folded_storage_, group_storage_;

  std::vector<T> maxima_, factors_;  // [blocks, rows]
  std::vector<double> sums_;         // [blocks, rows] sums of e
  std::vector<T> rights_;            // [rows] the target's score
  std::vector<double> largest_;      // [rows] maximum over the columns; later the factor of dx
};

}  // namespace

double table_softmax(const TableSoftmax<float>& problem, const TableSoftmaxGradients<float>& gradients) {
  return TableSoftmaxPass<float>(problem, gradients).run();
}
double table_softmax(const TableSoftmax<double>& problem, const TableSoftmaxGradients<double>& gradients) {
  return TableSoftmaxPass<double>(problem, gradients).run();
}

}  // namespace tally::kernels
