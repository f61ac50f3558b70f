#include "tally/ops/kernels/lsh_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/attention_block.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

/// Rows that are hashed at once.
constexpr std::int64_t kHashed = 256;

/// One head of one sequence: its rows gathered densely, its keys, and its order by buckets.
template <class T>
struct HashedHead {
  HashedHead(const LshPlan<T>& the_plan, std::int64_t first_row, std::int64_t rows, std::int64_t the_head)
      : plan(the_plan), row(first_row), length(rows), head(the_head) {
    queries = Scratch<T>(length * plan.width);
    keys = Scratch<T>(length * plan.width);
    inverse.resize(static_cast<std::size_t>(length));
    order.resize(static_cast<std::size_t>(length));
    for (std::int64_t i = 0; i < length; ++i) {
      const T* from = plan.qk.data + (row + i) * plan.qk.stride + head * plan.width;
      T* query = queries.data() + i * plan.width;
      T* key = keys.data() + i * plan.width;
      std::copy_n(from, plan.width, query);
      std::copy_n(from, plan.width, key);
      const double norm = std::sqrt(sum_squares(from, plan.width));
      inverse[static_cast<std::size_t>(i)] = static_cast<T>(norm > 0 ? 1 / norm : 0);
      scale(key, inverse[static_cast<std::size_t>(i)], plan.width);
    }
  }

  /// Sorts the rows by bucket, then by place; `ends` are the buckets' ends in that order.
  void hash(std::int64_t round) {
    const std::int64_t half = plan.half_buckets;
    const T* rotation = plan.rotations + round * half * plan.width;
    std::vector<T> products(static_cast<std::size_t>(std::min(length, kHashed) * half));
    std::vector<std::int64_t> bucket(static_cast<std::size_t>(length));
    ends.assign(static_cast<std::size_t>(2 * half), 0);
    for (std::int64_t begin = 0; begin < length; begin += kHashed) {
      const std::int64_t count = std::min(kHashed, length - begin);
      blas::gemm(Transpose::no, Transpose::yes, count, half, plan.width, T{1}, queries.data() + begin * plan.width,
                 plan.width, rotation, plan.width, T{0}, products.data(), half);
      for (std::int64_t r = 0; r < count; ++r) {
        const T* row_products = products.data() + r * half;
        const T* highest = std::max_element(row_products, row_products + half);
        const T* lowest = std::min_element(row_products, row_products + half);
        const std::int64_t found = *highest >= -*lowest ? highest - row_products : half + (lowest - row_products);
        bucket[static_cast<std::size_t>(begin + r)] = found;
        ++ends[static_cast<std::size_t>(found)];
      }
    }
    std::int64_t total = 0;
    for (std::int64_t& end : ends) {
      const std::int64_t count = end;
      end = total;  // where the bucket begins; it moves to its end as the rows come in
      total += count;
    }
    for (std::int64_t i = 0; i < length; ++i)
      order[static_cast<std::size_t>(ends[static_cast<std::size_t>(bucket[static_cast<std::size_t>(i)])]++)] = i;
  }

  /// Calls body(rows, number of them, those of the chunk before) for each chunk of a round; the rows of the chunk
  /// before stand just before `rows`.
  template <class Body>
  void for_each_chunk(std::int64_t round, Body&& body) {
    hash(round);
    std::int64_t begin = 0;
    for (const std::int64_t end : ends) {
      for (std::int64_t first = begin; first < end; first += plan.chunk) {
        body(order.data() + first, std::min(plan.chunk, end - first), first == begin ? std::int64_t{0} : plan.chunk);
      }
      begin = end;
    }
  }

  /// The keys that a chunk's rows see, gathered.
  KeySet<T> gather_keys(const std::int64_t* rows, std::int64_t count, std::int64_t before, Scratch<T>& key_rows,
                        Scratch<T>& value_rows) const {
    for (std::int64_t j = 0; j < before + count; ++j) {
      const std::int64_t from = rows[j - before];
      std::copy_n(keys.data() + from * plan.width, plan.width, key_rows.data() + j * plan.width);
      std::copy_n(plan.v.data + (row + from) * plan.v.stride + head * plan.value_width, plan.value_width,
                  value_rows.data() + j * plan.value_width);
    }
    const TileBand band = plan.causal ? TileBand{kWholeTile.first, before + 1} : kWholeTile;
    return {{key_rows.data(), plan.width}, {value_rows.data(), plan.value_width}, before + count, band, before};
  }

  const LshPlan<T>& plan;
  std::int64_t row, length, head;
  Scratch<T> queries, keys;  ///< [length, width], and the same normalised
  std::vector<T> inverse;    ///< 1 / norm
  std::vector<std::int64_t> order, ends;
};

/// Copies rows of `width` between a list of places and a dense block.
template <class T>
void gather(const T* from, std::int64_t stride, const std::int64_t* places, std::int64_t count, std::int64_t width,
            T* to) {
  for (std::int64_t r = 0; r < count; ++r) std::copy_n(from + places[r] * stride, width, to + r * width);
}
template <class T>
void scatter(const T* from, const std::int64_t* places, std::int64_t count, std::int64_t width, T* to,
             std::int64_t stride) {
  for (std::int64_t r = 0; r < count; ++r) std::copy_n(from + r * width, width, to + places[r] * stride);
}

/// Buffers of a chunk.
template <class T>
struct ChunkBuffers {
  ChunkBuffers(const LshPlan<T>& plan, std::int64_t length)
      : rows(std::min(plan.chunk, length)),
        block(rows, 2 * rows, plan.width, plan.value_width, plan.scale),
        queries(rows * plan.width),
        keys(2 * rows * plan.width),
        values(2 * rows * plan.value_width),
        out(rows * plan.value_width) {}
  std::int64_t rows;
  AttentionBlock<T> block;
  Scratch<T> queries, keys, values, out;
};

template <class T>
void forward(HashedHead<T>& at, T* output, double* log_sum_exp) {
  const LshPlan<T>& plan = at.plan;
  const std::int64_t stride = plan.heads * plan.value_width;
  T* out = output + at.row * stride + at.head * plan.value_width;
  double* sums = log_sum_exp + at.row * plan.heads + at.head;
  ChunkBuffers<T> c(plan, at.length);
  // Of every row, what earlier rounds found.
  std::vector<T> maximum(static_cast<std::size_t>(at.length));
  std::vector<double> sum(static_cast<std::size_t>(at.length));
  for (std::int64_t round = 0; round < plan.rounds; ++round) {
    at.for_each_chunk(round, [&](const std::int64_t* rows, std::int64_t count, std::int64_t before) {
      const KeySet<T> set = at.gather_keys(rows, count, before, c.keys, c.values);
      gather(at.queries.data(), plan.width, rows, count, plan.width, c.queries.data());
      c.block.start(count, round > 0);
      if (round > 0) {
        gather<T>(out, stride, rows, count, plan.value_width, c.out.data());
        gather(maximum.data(), 1, rows, count, 1, c.block.maximum.data());
        gather(sum.data(), 1, rows, count, 1, c.block.sum.data());
      }
      c.block.add({c.queries.data(), plan.width}, count, set, {c.out.data(), plan.value_width});
      scatter(c.out.data(), rows, count, plan.value_width, out, stride);
      scatter(c.block.maximum.data(), rows, count, 1, maximum.data(), 1);
      scatter(c.block.sum.data(), rows, count, 1, sum.data(), 1);
    });
  }
  for (std::int64_t i = 0; i < at.length; ++i) {
    const auto r = static_cast<std::size_t>(i);
    sums[i * plan.heads] = static_cast<double>(maximum[r]) + std::log(sum[r]);
    scale(out + i * stride, static_cast<T>(1 / sum[r]), plan.value_width);
  }
}

template <class T>
void backward(HashedHead<T>& at, const LshBackward<T>& data, const T* delta) {
  const LshPlan<T>& plan = at.plan;
  const std::int64_t stride = plan.heads * plan.width, value_stride = plan.heads * plan.value_width;
  const T* gradient = data.gradient_output + at.row * value_stride + at.head * plan.value_width;
  ChunkBuffers<T> c(plan, at.length);
  const bool for_queries = data.gradient_qk != nullptr, for_values = data.gradient_v != nullptr;
  const auto room = [](bool wanted, std::int64_t size) { return wanted ? Scratch<T>::zeros(size) : Scratch<T>(); };
  // Of all rows, and of a chunk's.
  Scratch<T> all_queries = room(for_queries, at.queries.size()), all_keys = room(for_queries, at.keys.size());
  Scratch<T> all_values = room(for_values, at.length * plan.value_width);
  Scratch<T> queries = room(for_queries, c.queries.size()), keys = room(for_queries, c.keys.size());
  Scratch<T> values = room(for_values, c.values.size());
  std::vector<double> log_sum_exp(static_cast<std::size_t>(c.rows));
  std::vector<T> deltas(log_sum_exp.size());
  const auto add_rows = [](Scratch<T>& from, const std::int64_t* rows, std::int64_t count, std::int64_t width,
                           Scratch<T>& to) {
    for (std::int64_t r = 0; r < count && !to.absent(); ++r)
      add_into(to.data() + rows[r] * width, from.data() + r * width, width);
    from.clear();
  };
  for (std::int64_t round = 0; round < plan.rounds; ++round) {
    at.for_each_chunk(round, [&](const std::int64_t* rows, std::int64_t count, std::int64_t before) {
      const KeySet<T> set = at.gather_keys(rows, count, before, c.keys, c.values);
      gather(at.queries.data(), plan.width, rows, count, plan.width, c.queries.data());
      gather(gradient, value_stride, rows, count, plan.value_width, c.out.data());
      const std::int64_t place = at.row * plan.heads + at.head;
      gather(data.log_sum_exp + place, plan.heads, rows, count, 1, log_sum_exp.data());
      gather(delta + place, plan.heads, rows, count, 1, deltas.data());
      c.block.backward({c.queries.data(), plan.width}, count, set, {c.out.data(), plan.value_width}, log_sum_exp.data(),
                       deltas.data(), 1, {for_queries ? queries.data() : nullptr, plan.width},
                       {{for_queries ? keys.data() : nullptr, plan.width},
                        {for_values ? values.data() : nullptr, plan.value_width}});
      add_rows(queries, rows, count, plan.width, all_queries);
      add_rows(keys, rows - before, before + count, plan.width, all_keys);
      add_rows(values, rows - before, before + count, plan.value_width, all_values);
    });
  }
  for (std::int64_t i = 0; i < at.length && for_queries; ++i) {
    // Through the normalisation of the key: (g - <g, key> key) / norm.
    T* to = data.gradient_qk + (at.row + i) * stride + at.head * plan.width;
    const T* key = at.keys.data() + i * plan.width;
    T* gradient_key = all_keys.data() + i * plan.width;
    const T inverse = at.inverse[static_cast<std::size_t>(i)];
    axpy(gradient_key, -dot(gradient_key, key, plan.width), key, plan.width);
    std::copy_n(all_queries.data() + i * plan.width, plan.width, to);
    axpy(to, inverse, gradient_key, plan.width);
  }
  for (std::int64_t i = 0; i < at.length && for_values; ++i) {
    std::copy_n(all_values.data() + i * plan.value_width, plan.value_width,
                data.gradient_v + (at.row + i) * value_stride + at.head * plan.value_width);
  }
}

/// Calls body(head) for every head of every sequence, in parallel.
template <class T, class Body>
void for_each_head(const LshPlan<T>& plan, Body&& body) {
  const auto count = static_cast<std::int64_t>(plan.bounds.size()) - 1;
  parallel_for(count * plan.heads, 1, [&](std::int64_t task, std::int64_t) {
    const auto sequence = static_cast<std::size_t>(task / plan.heads);
    const std::int64_t row = plan.bounds[sequence], length = plan.bounds[sequence + 1] - row;
    if (length == 0) return;
    HashedHead<T> head(plan, row, length, task % plan.heads);
    body(head);
  });
}

}  // namespace

template <class T>
void lsh_forward(const LshPlan<T>& plan, T* output, double* log_sum_exp) {
  for_each_head(plan, [&](HashedHead<T>& head) { forward(head, output, log_sum_exp); });
}

template <class T>
void lsh_backward(const LshPlan<T>& plan, const LshBackward<T>& data) {
  const std::int64_t rows = plan.bounds.back();
  Scratch<T> delta(rows * plan.heads);
  head_products(data.output, data.gradient_output, rows, plan.heads, plan.value_width, delta.data());
  for_each_head(plan, [&](HashedHead<T>& head) { backward<T>(head, data, delta.data()); });
}

template void lsh_forward(const LshPlan<float>&, float*, double*);
template void lsh_forward(const LshPlan<double>&, double*, double*);
template void lsh_backward(const LshPlan<float>&, const LshBackward<float>&);
template void lsh_backward(const LshPlan<double>&, const LshBackward<double>&);

}  // namespace tally::kernels
