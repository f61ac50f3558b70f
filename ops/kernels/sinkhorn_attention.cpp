#include "tally/ops/kernels/sinkhorn_attention.h"

#include <algorithm>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/attention_block.h"
#include "tally/ops/kernels/scratch.h"
#include "tally/ops/kernels/sinkhorn.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

struct Sequence {
  std::int64_t row, length, first_block, blocks;
};
struct Block {
  std::int64_t row, rows, index;  ///< of all blocks
  bool sorted;                    ///< has a sorted block
};

/// Where sequences and blocks are.
struct Layout {
  template <class T>
  explicit Layout(const SinkhornAttentionPlan<T>& plan) {
    for (std::size_t s = 0; s + 1 < plan.bounds.size(); ++s) {
      const std::int64_t row = plan.bounds[s], length = plan.bounds[s + 1] - row;
      if (length == 0) continue;
      const std::int64_t count = block_count(length, plan.block), first = static_cast<std::int64_t>(blocks.size());
      sequences.push_back({row, length, first, count});
      for (std::int64_t b = 0; b < count; ++b) {
        blocks.push_back(
            {row + b * plan.block, std::min(plan.block, length - b * plan.block), first + b, b > 0 || !plan.causal});
      }
    }
  }
  std::vector<Sequence> sequences;
  std::vector<Block> blocks;
};

/// The blocks of a matrix [rows, columns] of one sequence, seen as rows [n, block * columns]: the whole ones, and the
/// last when it is shorter, which has the first `rest` columns alone.
struct BlockRows {
  BlockRows(const Sequence& sequence, std::int64_t block, std::int64_t matrix_columns)
      : n(sequence.blocks),
        whole(sequence.length / block),
        columns(block * matrix_columns),
        rest(sequence.length % block * matrix_columns) {}
  std::int64_t n, whole, columns, rest;
};

/// How the blocks of a sequence are mixed: by the permutation [n, n], and, in the rows that a shorter last block lacks,
/// by the weights of the whole blocks alone, brought to a sum of 1 again.
template <class T>
struct Mixture {
  Mixture(const SoftPermutation& permutation, const Sequence& at, std::int64_t block)
      : blocks(at.blocks),
        whole(at.length / block),
        rest(at.length % block),
        matrix(static_cast<std::size_t>(blocks * blocks)) {
    permutation.write(matrix.data());
    if (rest == 0) return;
    lacking = matrix;
    for (std::int64_t i = 0; i < blocks; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < whole; ++j) sum += static_cast<double>(weight(i, j));
      sums.push_back(static_cast<T>(sum));
      for (std::int64_t j = 0; j < blocks; ++j) {
        T& each = lacking[static_cast<std::size_t>(i * blocks + j)];
        each = j < whole && sum > 0 ? static_cast<T>(static_cast<double>(each) / sum) : T{0};
      }
    }
  }

  T weight(std::int64_t i, std::int64_t j) const { return matrix[static_cast<std::size_t>(i * blocks + j)]; }
  /// Rows of sorted block i that some block has a part in.
  std::int64_t rows(std::int64_t i, std::int64_t block) const {
    return rest == 0 || sums[static_cast<std::size_t>(i)] > 0 ? block : rest;
  }
  /// Adds the gradient of `lacking` to that of the matrix.
  void add_lacking(const std::vector<T>& gradient, T* to) const {
    for (std::int64_t i = 0; i < blocks && rest > 0; ++i) {
      const T sum = sums[static_cast<std::size_t>(i)];
      if (!(sum > 0)) continue;
      const T* row = gradient.data() + i * blocks;
      const T mean = dot(row, lacking.data() + i * blocks, whole);
      for (std::int64_t j = 0; j < whole; ++j) to[i * blocks + j] += (row[j] - mean) / sum;
    }
  }

  std::int64_t blocks, whole, rest;
  std::vector<T> matrix, lacking, sums;
};

/// mixed [n, columns] of x.
template <class T>
void mix(const BlockRows& at, const Mixture<T>& by, const T* x, T* mixed) {
  const std::int64_t shared = at.rest > 0 ? at.rest : at.columns;
  blas::gemm(Transpose::no, Transpose::no, at.n, shared, at.whole, T{1}, by.matrix.data(), at.n, x, at.columns, T{0},
             mixed, at.columns);
  if (at.rest == 0) return;
  blas::gemm(Transpose::no, Transpose::no, at.n, at.rest, 1, T{1}, by.matrix.data() + at.whole, at.n,
             x + at.whole * at.columns, at.rest, T{1}, mixed, at.columns);
  blas::gemm(Transpose::no, Transpose::no, at.n, at.columns - at.rest, at.whole, T{1}, by.lacking.data(), at.n,
             x + at.rest, at.columns, T{0}, mixed + at.rest, at.columns);
}

/// gx += what `gradient` of mixed gives x, and gradient_matrix += what it gives the permutation; either may be null.
template <class T>
void mix_backward(const BlockRows& at, const Mixture<T>& by, const T* x, const T* gradient, T* gx, T* gradient_matrix) {
  const std::int64_t shared = at.rest > 0 ? at.rest : at.columns, lacking = at.columns - shared;
  if (gx != nullptr) {
    blas::gemm(Transpose::yes, Transpose::no, at.whole, shared, at.n, T{1}, by.matrix.data(), at.n, gradient,
               at.columns, T{1}, gx, at.columns);
    if (at.rest > 0) {
      blas::gemm(Transpose::yes, Transpose::no, 1, at.rest, at.n, T{1}, by.matrix.data() + at.whole, at.n, gradient,
                 at.columns, T{1}, gx + at.whole * at.columns, at.rest);
      blas::gemm(Transpose::yes, Transpose::no, at.whole, lacking, at.n, T{1}, by.lacking.data(), at.n,
                 gradient + at.rest, at.columns, T{1}, gx + at.rest, at.columns);
    }
  }
  if (gradient_matrix == nullptr) return;
  blas::gemm(Transpose::no, Transpose::yes, at.n, at.whole, shared, T{1}, gradient, at.columns, x, at.columns, T{1},
             gradient_matrix, at.n);
  if (at.rest == 0) return;
  blas::gemm(Transpose::no, Transpose::yes, at.n, 1, at.rest, T{1}, gradient, at.columns, x + at.whole * at.columns,
             at.rest, T{1}, gradient_matrix + at.whole, at.n);
  std::vector<T> gradient_lacking(by.lacking.size(), T{0});
  blas::gemm(Transpose::no, Transpose::yes, at.n, at.whole, lacking, T{1}, gradient + at.rest, at.columns, x + at.rest,
             at.columns, T{0}, gradient_lacking.data(), at.n);
  by.add_lacking(gradient_lacking, gradient_matrix);
}

/// The sorted keys and values of all blocks, [blocks * block, heads * width].
template <class T>
struct Sorted {
  Sorted(const SinkhornAttentionPlan<T>& the_plan, const Layout& the_layout) : plan(the_plan), layout(the_layout) {
    const auto rows = static_cast<std::int64_t>(layout.blocks.size()) * plan.block;
    present.resize(layout.blocks.size());
    keys = Scratch<T>(rows * plan.heads * plan.width);
    values = Scratch<T>(rows * plan.heads * plan.value_width);
    parallel_for(static_cast<std::int64_t>(layout.sequences.size()), 1, [&](std::int64_t s, std::int64_t) {
      const Sequence& sequence = layout.sequences[static_cast<std::size_t>(s)];
      const Mixture<T> by(permutation(sequence), sequence, plan.block);
      for (std::int64_t i = 0; i < sequence.blocks; ++i) {
        present[static_cast<std::size_t>(sequence.first_block + i)] = by.rows(i, plan.block);
      }
      mix(key_rows(sequence), by, plan.k + sequence.row * plan.heads * plan.width, keys_of(keys, sequence));
      mix(value_rows(sequence), by, plan.v + sequence.row * plan.heads * plan.value_width, values_of(values, sequence));
    });
  }

  SoftPermutation permutation(const Sequence& at) const {
    return {plan.logits + at.first_block * plan.logit_columns,
            plan.logit_columns,
            at.blocks,
            1 / plan.temperature,
            plan.iterations,
            plan.causal};
  }
  BlockRows key_rows(const Sequence& at) const { return {at, plan.block, plan.heads * plan.width}; }
  BlockRows value_rows(const Sequence& at) const { return {at, plan.block, plan.heads * plan.value_width}; }
  template <class V>
  auto keys_of(V& all, const Sequence& at) const {
    return all.data() + at.first_block * plan.block * plan.heads * plan.width;
  }
  template <class V>
  auto values_of(V& all, const Sequence& at) const {
    return all.data() + at.first_block * plan.block * plan.heads * plan.value_width;
  }

  /// A head of a block's sorted rows, and of its own.
  KeySet<T> sorted_set(const Block& at, std::int64_t head) const {
    const std::int64_t first = at.index * plan.block, stride = plan.heads * plan.width,
                       value_stride = plan.heads * plan.value_width;
    return {{keys.data() + first * stride + head * plan.width, stride},
            {values.data() + first * value_stride + head * plan.value_width, value_stride},
            present[static_cast<std::size_t>(at.index)]};
  }
  KeySet<T> own_set(const Block& at, std::int64_t head) const {
    const std::int64_t stride = plan.heads * plan.width, value_stride = plan.heads * plan.value_width;
    return {{plan.k + at.row * stride + head * plan.width, stride},
            {plan.v + at.row * value_stride + head * plan.value_width, value_stride},
            at.rows,
            plan.causal ? TileBand{kWholeTile.first, 1} : kWholeTile};
  }
  MatrixRows<const T> queries(const Block& at, std::int64_t head) const {
    return {plan.q.data + at.row * plan.q.stride + head * plan.width, plan.q.stride};
  }

  /// Calls body(block, head, buffers) for all blocks and heads, in parallel.
  template <class Body>
  void for_each_block(Body&& body) const {
    const auto blocks = static_cast<std::int64_t>(layout.blocks.size());
    parallel_for(blocks, 1, [&](std::int64_t b, std::int64_t) {
      const Block& block = layout.blocks[static_cast<std::size_t>(b)];
      AttentionBlock<T> buffers(block.rows, plan.block, plan.width, plan.value_width, plan.scale);
      for (std::int64_t head = 0; head < plan.heads; ++head) body(block, head, buffers);
    });
  }

  const SinkhornAttentionPlan<T>& plan;
  const Layout& layout;
  Scratch<T> keys, values;
  std::vector<std::int64_t> present;  ///< rows of every sorted block that are mixtures of something
};

}  // namespace

template <class T>
void sinkhorn_attention_forward(const SinkhornAttentionPlan<T>& plan, T* output, double* log_sum_exp) {
  const Layout layout(plan);
  const Sorted<T> sorted(plan, layout);
  const std::int64_t stride = plan.heads * plan.value_width;
  sorted.for_each_block([&](const Block& at, std::int64_t head, AttentionBlock<T>& block) {
    const MatrixRows<T> out{output + at.row * stride + head * plan.value_width, stride};
    block.start(at.rows);
    block.add(sorted.queries(at, head), at.rows, sorted.own_set(at, head), out);
    if (at.sorted) block.add(sorted.queries(at, head), at.rows, sorted.sorted_set(at, head), out);
    block.finish(at.rows, out, log_sum_exp + at.row * plan.heads + head, plan.heads);
  });
}

template <class T>
void sinkhorn_attention_backward(const SinkhornAttentionPlan<T>& plan, const SinkhornAttentionBackward<T>& data) {
  const Layout layout(plan);
  const Sorted<T> sorted(plan, layout);
  const std::int64_t rows = plan.bounds.back(), stride = plan.heads * plan.width,
                     value_stride = plan.heads * plan.value_width;
  Scratch<T> delta(rows * plan.heads);
  head_products(data.output, data.gradient_output, rows, plan.heads, plan.value_width, delta.data());
  const bool logits = data.gradient_logits != nullptr;
  Scratch<T> sorted_keys, sorted_values;
  if (logits || data.gradient_k != nullptr) sorted_keys = Scratch<T>::zeros(sorted.keys.size());
  if (logits || data.gradient_v != nullptr) sorted_values = Scratch<T>::zeros(sorted.values.size());
  for (const auto& [to, columns] : {std::pair{data.gradient_q, stride}, std::pair{data.gradient_k, stride},
                                    std::pair{data.gradient_v, value_stride}}) {
    if (to != nullptr) std::fill_n(to, rows * columns, T{0});
  }
  const auto part = [](T* all, std::int64_t row, std::int64_t distance, std::int64_t column) {
    return MatrixRows<T>{all == nullptr ? nullptr : all + row * distance + column, distance};
  };
  sorted.for_each_block([&](const Block& at, std::int64_t head, AttentionBlock<T>& block) {
    const std::int64_t place = at.row * plan.heads + head, column = head * plan.width,
                       value_column = head * plan.value_width, first = at.index * plan.block;
    const MatrixRows<const T> gradient{data.gradient_output + at.row * value_stride + value_column, value_stride};
    const MatrixRows<T> gq = part(data.gradient_q, at.row, stride, column);
    const auto add = [&](const KeySet<T>& set, const KeySetGradient<T>& to) {
      block.backward(sorted.queries(at, head), at.rows, set, gradient, data.log_sum_exp + place, delta.data() + place,
                     plan.heads, gq, to);
    };
    add(sorted.own_set(at, head),
        {part(data.gradient_k, at.row, stride, column), part(data.gradient_v, at.row, value_stride, value_column)});
    if (!at.sorted) return;
    add(sorted.sorted_set(at, head), {part(sorted_keys.data(), first, stride, column),
                                      part(sorted_values.data(), first, value_stride, value_column)});
  });
  parallel_for(static_cast<std::int64_t>(layout.sequences.size()), 1, [&](std::int64_t s, std::int64_t) {
    const Sequence& at = layout.sequences[static_cast<std::size_t>(s)];
    const SoftPermutation permutation = sorted.permutation(at);
    const Mixture<T> by(permutation, at, plan.block);
    std::vector<T> gradient_matrix(logits ? by.matrix.size() : 0, T{0});
    T* to_matrix = logits ? gradient_matrix.data() : nullptr;
    if (!sorted_keys.absent()) {
      mix_backward<T>(sorted.key_rows(at), by, plan.k + at.row * stride, sorted.keys_of(sorted_keys, at),
                      data.gradient_k == nullptr ? nullptr : data.gradient_k + at.row * stride, to_matrix);
    }
    if (!sorted_values.absent()) {
      mix_backward<T>(sorted.value_rows(at), by, plan.v + at.row * value_stride, sorted.values_of(sorted_values, at),
                      data.gradient_v == nullptr ? nullptr : data.gradient_v + at.row * value_stride, to_matrix);
    }
    if (!logits) return;
    T* to = data.gradient_logits + at.first_block * plan.logit_columns;
    std::fill_n(to, at.blocks * plan.logit_columns, T{0});
    permutation.backward(gradient_matrix.data(), to, plan.logit_columns);
  });
}

template void sinkhorn_attention_forward(const SinkhornAttentionPlan<float>&, float*, double*);
template void sinkhorn_attention_forward(const SinkhornAttentionPlan<double>&, double*, double*);
template void sinkhorn_attention_backward(const SinkhornAttentionPlan<float>&, const SinkhornAttentionBackward<float>&);
template void sinkhorn_attention_backward(const SinkhornAttentionPlan<double>&,
                                          const SinkhornAttentionBackward<double>&);

}  // namespace tally::kernels
