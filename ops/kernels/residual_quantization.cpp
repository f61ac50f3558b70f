#include "tally/ops/kernels/residual_quantization.h"

#include <algorithm>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/core/right_operand.h"
#include "tally/ops/kernels/codeword_assignment.h"
#include "tally/ops/kernels/codewords.h"
#include "tally/ops/kernels/quantization_groups.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using namespace quantization;
using blas::Transpose;

// The scores of a tile and its rows stay in a cache from the first look at them to the last.
constexpr std::int64_t kTileElements = 1 << 15;

/// Hard assignments of one tile by one group, from scores: codes and, with `logits`, these in place of the scores.
template <class T, class Code>
void assign_hard(const QuantizationPlan<T>& plan, const Group& group, std::int64_t rows, T* scores, std::int64_t stride,
                 Code* codes, bool logits) {
  const CodewordScores<T> from{.scores = scores + group.first,
                               .stride = stride,
                               .rows = rows,
                               .books = group.books,
                               .words = plan.words,
                               .bias = at_or_null(plan.bias, group.first),
                               .products = at_or_null(plan.products, group.first * plan.group_columns()),
                               .product_stride = plan.group_columns()};
  choose_codewords(from, codes + group.book, plan.code_stride, logits ? scores + group.first : nullptr,
                   plan.inverse_temperature);
}

/// Soft assignments of one tile by one group: logits in place of the scores, probabilities and codes.
template <class T, class Code>
void assign_soft(const QuantizationPlan<T>& plan, const Group& group, std::int64_t rows, T* logits, std::int64_t stride,
                 T* probabilities, Code* codes) {
  const std::int64_t end = group.end();
  for (std::int64_t book = group.book; book < group.book + group.books; ++book) {
    const std::int64_t begin = book * plan.words, later = begin + plan.words;
    const CodewordScores<T> from{.scores = logits + begin,
                                 .stride = stride,
                                 .rows = rows,
                                 .books = 1,
                                 .words = plan.words,
                                 .bias = at_or_null(plan.bias, begin)};
    choose_codewords(from, codes + book, plan.code_stride, logits + begin, plan.inverse_temperature);
    softmax_of_words(logits + begin, probabilities + begin, rows, plan.words, stride);
    if (plan.products == nullptr || later == end) continue;
    blas::gemm(Transpose::no, Transpose::no, rows, end - later, plan.words, T{-1}, probabilities + begin, stride,
               plan.products + begin * plan.group_columns() + later - group.first, plan.group_columns(), T{1},
               logits + later, stride);
  }
}

/// Forward of a tile of rows, group by group, with each group's codewords. `logits` and `reconstruction` may be null.
template <class T, class Code>
void quantize_tile(const QuantizationPlan<T>& plan, const std::vector<blas::RightOperand<T>>& projected,
                   std::int64_t rows, const T* x, Code* codes, T* logits, T* reconstruction) {
  const std::int64_t stride = logits == nullptr ? plan.columns() : plan.logit_stride, width = plan.width;
  const std::int64_t groups = plan.groups();
  const auto area = [&](bool needed, std::int64_t columns) {
    return needed ? Scratch<T>(rows * columns) : Scratch<T>();
  };
  Scratch<T> own_scores = area(logits == nullptr, stride), probabilities = area(plan.soft, stride);
  Scratch<T> own_sum = area(groups > 1 && reconstruction == nullptr, width), rest = area(groups > 1, width);
  T* scores = logits == nullptr ? own_scores.data() : logits;
  T* sum = reconstruction == nullptr ? own_sum.data() : reconstruction;
  const std::int64_t sum_stride = reconstruction == nullptr ? width : plan.row_stride;
  const RowsOf<T> input{x, plan.row_stride};
  for (std::int64_t index = 0; index < groups; ++index) {
    const Group group = group_at(plan, index);
    const RowsOf<T> encoded = index == 0 ? input : RowsOf<T>{rest.data(), width};
    projected[static_cast<std::size_t>(index)].multiply(Transpose::no, rows, T{1}, encoded.data, encoded.stride, T{0},
                                                        scores + group.first, stride);
    if (plan.soft) {
      assign_soft(plan, group, rows, scores, stride, probabilities.data(), codes);
    } else {
      assign_hard(plan, group, rows, scores, stride, codes, logits != nullptr);
    }
    const bool last = index + 1 == groups;
    if (last && reconstruction == nullptr) break;
    const T* words = plan.codebooks + group.first * width;
    if (plan.soft) {
      blas::gemm(Transpose::no, Transpose::no, rows, width, group.columns, T{1}, probabilities.data() + group.first,
                 stride, words, width, index == 0 ? T{0} : T{1}, sum, sum_stride);
    } else {
      sum_codewords(words, code_rows(plan, group, codes, rows), sum, sum_stride, index > 0);
    }
    if (!last) subtract(input, {sum, sum_stride}, rows, width, rest.data());
  }
}

}  // namespace

template <class T, class Code>
std::int64_t quantize(const QuantizationPlan<T>& plan, Code* codes, T* logits, T* reconstruction) {
  const std::int64_t height = tile_rows(plan.columns(), kTileElements);
  std::vector<blas::RightOperand<T>> projected;
  for (std::int64_t index = 0; index < plan.groups(); ++index) {
    const Group group = group_at(plan, index);
    projected.emplace_back(Transpose::yes, plan.width, group.columns, plan.projected + group.first * plan.width,
                           plan.width, std::min(plan.rows, height));
  }
  std::vector<std::int64_t> bad(static_cast<std::size_t>(block_count(plan.rows, height)), -1);
  parallel_for(plan.rows, height, [&](std::int64_t begin, std::int64_t end) {
    const T* x = plan.x + begin * plan.row_stride;
    const std::int64_t row = first_row_not_finite(x, end - begin, plan.width, plan.row_stride);
    if (row >= 0) {
      bad[static_cast<std::size_t>(begin / height)] = begin + row;
      return;
    }
    quantize_tile(plan, projected, end - begin, x, codes + begin * plan.code_stride,
                  at_or_null(logits, begin * plan.logit_stride), at_or_null(reconstruction, begin * plan.row_stride));
  });
  const auto found = std::find_if(bad.begin(), bad.end(), [](std::int64_t row) { return row >= 0; });
  return found == bad.end() ? -1 : *found;
}

template std::int64_t quantize(const QuantizationPlan<float>&, std::uint8_t*, float*, float*);
template std::int64_t quantize(const QuantizationPlan<float>&, std::int32_t*, float*, float*);
template std::int64_t quantize(const QuantizationPlan<double>&, std::uint8_t*, double*, double*);
template std::int64_t quantize(const QuantizationPlan<double>&, std::int32_t*, double*, double*);

}  // namespace tally::kernels
