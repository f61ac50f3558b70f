#include "tally/ops/kernels/causal_lookup.h"

#include <algorithm>
#include <utility>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/lookup_gates.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t kChunk = kLookupChunk;
constexpr std::int64_t kGroup = 64;  // lookups that are taken together, at most

/// One document. `queries` and `gradients` stand for a group's rows of each, gathered.
template <class T>
struct Walk {
  const CausalLookupPlan<T>& plan;
  const CausalLookupBackward<T>& data;
  const LookedUp& at;
  ChunkGates<T>& gates;
  T* state;      ///< [width, value_width]: S before a chunk, or the gradient of S after it
  T* queries;    ///< [kGroup, width]
  T* gradients;  ///< [kGroup, value_width]; results in forward
  T* products;   ///< [kGroup, kChunk], of queries and keys
  T* slopes;     ///< [kGroup, kChunk], of gradients and values
  T* weighted;   ///< [kChunk, width]: keys, or a gradient
  T* of_shared;  ///< [kChunk, value_width]: the values' part of a gradient of both keys and values
  double* read;  ///< of each lookup of the document: what it reads of rows before its chunk, times its gradient

  /// Rows [row, row + rows) and the lookups [first, end) there.
  struct Chunk {
    std::int64_t row, rows, first, end;
    bool begins, ends;  ///< the document; what is looked up of it
  };

  std::int64_t seen() const { return plan.order.place(at.end - 1) + 1 - at.row; }
  std::int64_t chunks() const { return block_count(seen(), kChunk); }
  Chunk chunk(std::int64_t i) const {
    const std::int64_t row = at.row + i * kChunk, rows = std::min(kChunk, seen() - i * kChunk);
    return {row, rows, plan.order.at(row), plan.order.at(row + rows), i == 0, i + 1 == chunks()};
  }
  void open(const Chunk& c) const {
    gates.load(plan.log_decay == nullptr ? nullptr : plan.log_decay + c.row,
               plan.gain == nullptr ? nullptr : plan.gain + c.row, c.rows);
  }
  const T* keys(const Chunk& c) const { return plan.keys.data + c.row * plan.keys.stride; }
  const T* values(const Chunk& c) const { return plan.values.data + c.row * plan.values.stride; }

  /// Calls body(first, count, rows) for groups of lookups: those from position `first`, which see `rows` of the chunk.
  template <class Body>
  void groups(const Chunk& c, Body&& body) const {
    for (std::int64_t first = c.first; first < c.end; first += kGroup) {
      const std::int64_t count = std::min(kGroup, c.end - first);
      body(first, count, plan.order.place(first + count - 1) + 1 - c.row);
    }
  }
  std::int64_t row_of(const Chunk& c, std::int64_t position) const { return plan.order.place(position) - c.row; }
  void load_queries(std::int64_t first, std::int64_t count) const {
    gather_lookups(plan.queries.data, plan.queries.stride, plan.order.lookups_from(first), count, plan.width, queries);
  }
  void load_gradients(std::int64_t first, std::int64_t count) const {
    gather_lookups(data.gradient_output, plan.value_width, plan.order.lookups_from(first), count, plan.value_width,
                   gradients);
  }
  /// to = b c^T over `rows` rows c of the chunk, for a group's rows b of this width.
  void multiply(std::int64_t count, std::int64_t rows, std::int64_t width, const T* b, const T* c, std::int64_t stride,
                T* to) const {
    blas::gemm(Transpose::no, Transpose::yes, count, rows, width, T{1}, b, width, c, stride, T{0}, to, kChunk);
  }
  /// Rows of a group [count, width] by what is left of the state at their places.
  void decay(const Chunk& c, std::int64_t first, std::int64_t count, std::int64_t width, T* x) const {
    if (plan.log_decay == nullptr) return;
    for (std::int64_t j = 0; j < count; ++j) scale(x + j * width, gates.before(row_of(c, first + j)), width);
  }
  /// Products of a group by what is left of each row at the lookups' places, and by the rows' gains; 0 where not seen.
  void weigh(const Chunk& c, std::int64_t first, std::int64_t count, std::int64_t rows, bool gained, T* x) const {
    for (std::int64_t j = 0; j < count; ++j) gates.weigh(row_of(c, first + j), rows, gained, x + j * kChunk);
  }

  /// The state after a chunk from that before it.
  void advance(const Chunk& c) const {
    const T* rows = keys(c);
    std::int64_t stride = plan.keys.stride;
    if (plan.log_decay != nullptr || plan.gain != nullptr) {
      for (std::int64_t t = 0; t < c.rows; ++t) {
        const T weight = gates.after(t) * gates.gain(t);
        for (std::int64_t i = 0; i < plan.width; ++i) weighted[t * plan.width + i] = weight * rows[t * stride + i];
      }
      rows = weighted;
      stride = plan.width;
    }
    blas::gemm(Transpose::yes, Transpose::no, plan.width, plan.value_width, c.rows, T{1}, rows, stride, values(c),
               plan.values.stride, c.begins ? T{0} : gates.before(c.rows - 1), state, plan.value_width);
  }

  void forward(T* output) const {
    const std::int64_t width = plan.width, value_width = plan.value_width;
    T* results = gradients;
    for (std::int64_t i = 0; i < chunks(); ++i) {
      const Chunk c = chunk(i);
      open(c);
      groups(c, [&](std::int64_t first, std::int64_t count, std::int64_t rows) {
        load_queries(first, count);
        if (!c.begins) {
          blas::gemm(Transpose::no, Transpose::no, count, value_width, width, T{1}, queries, width, state, value_width,
                     T{0}, results, value_width);
          decay(c, first, count, value_width, results);
        }
        multiply(count, rows, width, queries, keys(c), plan.keys.stride, products);
        weigh(c, first, count, rows, true, products);
        blas::gemm(Transpose::no, Transpose::no, count, value_width, rows, T{1}, products, kChunk, values(c),
                   plan.values.stride, c.begins ? T{0} : T{1}, results, value_width);
        scatter_lookups(results, plan.order.lookups_from(first), count, value_width, false, output);
      });
      if (!c.ends) advance(c);
    }
  }

  void backward() const {
    if (data.gradient_queries != nullptr || data.gradient_log_decay != nullptr) backward_queries();
    if (data.gradient_keys != nullptr || data.gradient_values != nullptr || data.gradient_log_decay != nullptr ||
        data.gradient_gain != nullptr)
      backward_rows();
  }

 private:
  void backward_queries() const {
    const std::int64_t width = plan.width, value_width = plan.value_width;
    T* change = weighted;  // [kGroup, width]
    for (std::int64_t i = 0; i < chunks(); ++i) {
      const Chunk c = chunk(i);
      open(c);
      groups(c, [&](std::int64_t first, std::int64_t count, std::int64_t rows) {
        load_gradients(first, count);
        if (!c.begins) {
          blas::gemm(Transpose::no, Transpose::yes, count, width, value_width, T{1}, gradients, value_width, state,
                     value_width, T{0}, change, width);
          decay(c, first, count, width, change);
        }
        if (data.gradient_log_decay != nullptr) {
          load_queries(first, count);
          for (std::int64_t j = 0; j < count; ++j)
            read[first + j - at.first] =
                c.begins ? 0 : static_cast<double>(dot(queries + j * width, change + j * width, width));
        }
        if (data.gradient_queries == nullptr) return;
        multiply(count, rows, value_width, gradients, values(c), plan.values.stride, slopes);
        weigh(c, first, count, rows, true, slopes);
        blas::gemm(Transpose::no, Transpose::no, count, width, rows, T{1}, slopes, kChunk, keys(c), plan.keys.stride,
                   c.begins ? T{0} : T{1}, change, width);
        scatter_lookups(change, plan.order.lookups_from(first), count, width, false, data.gradient_queries);
      });
      if (!c.ends) advance(c);
    }
  }

  void backward_rows() const {
    const bool decays = data.gradient_log_decay != nullptr,
               keyed = data.gradient_keys != nullptr || data.gradient_gain != nullptr,
               shared = data.gradient_values != nullptr && data.gradient_values == data.gradient_keys;
    const std::int64_t width = plan.width, value_width = plan.value_width;
    double crossing = 0;  // what lookups after the chunk read of rows up to its end, times their gradients
    for (std::int64_t i = chunks() - 1; i >= 0; --i) {
      const Chunk c = chunk(i);
      open(c);
      // G_t v_t for its rows t, and G_t^T k_t: by lookups after the chunk, then by those within.
      T* of_keys = data.gradient_keys == nullptr ? weighted : data.gradient_keys + c.row * width;
      T* of_values = shared                            ? of_shared
                     : data.gradient_values == nullptr ? nullptr
                                                       : data.gradient_values + c.row * value_width;
      PairSums sums;
      if (keyed || decays) {
        later(c, Transpose::yes, width, value_width, values(c), plan.values.stride, of_keys);
        for (std::int64_t t = 0; t < c.rows && decays; ++t)
          sums.later[static_cast<std::size_t>(t)] =
              static_cast<double>(gates.gain(t)) *
              static_cast<double>(dot(keys(c) + t * plan.keys.stride, of_keys + t * width, width));
      }
      if (of_values != nullptr) later(c, Transpose::no, value_width, width, keys(c), plan.keys.stride, of_values);
      bool within = c.ends;
      groups(c, [&](std::int64_t first, std::int64_t count, std::int64_t rows) {
        load_queries(first, count);
        load_gradients(first, count);
        if (of_values != nullptr || decays) {
          multiply(count, rows, width, queries, keys(c), plan.keys.stride, products);
          weigh(c, first, count, rows, false, products);
        }
        if (keyed || decays) multiply(count, rows, value_width, gradients, values(c), plan.values.stride, slopes);
        if (decays) {
          for (std::int64_t j = 0; j < count; ++j)
            gates.add_pairs(row_of(c, first + j), products + j * kChunk, slopes + j * kChunk,
                            read[first + j - at.first], sums);
        }
        if (keyed) {
          weigh(c, first, count, rows, false, slopes);
          blas::gemm(Transpose::yes, Transpose::no, rows, width, count, T{1}, slopes, kChunk, queries, width, T{1},
                     of_keys, width);
        }
        if (of_values != nullptr)
          blas::gemm(Transpose::yes, Transpose::no, rows, value_width, count, T{1}, products, kChunk, gradients,
                     value_width, T{1}, of_values, value_width);
        if (c.begins) return;
        decay(c, first, count, width, queries);
        blas::gemm(Transpose::yes, Transpose::no, width, value_width, count, T{1}, queries, width, gradients,
                   value_width,
                   first > c.first ? T{1}
                   : c.ends        ? T{0}
                                   : gates.before(c.rows - 1),
                   state, value_width);
        within = true;
      });
      if (!within && !c.begins && plan.log_decay != nullptr)
        scale(state, gates.before(c.rows - 1), width * value_width);
      for (std::int64_t t = 0; t < c.rows; ++t) {
        if (data.gradient_gain != nullptr)
          data.gradient_gain[c.row + t] = dot(keys(c) + t * plan.keys.stride, of_keys + t * width, width);
        if (plan.gain == nullptr) continue;
        if (data.gradient_keys != nullptr) scale(of_keys + t * width, gates.gain(t), width);
        if (of_values != nullptr) scale(of_values + t * value_width, gates.gain(t), value_width);
      }
      if (shared) add_into(of_keys, of_values, c.rows * width);
      if (decays) crossing = gates.slopes(sums, crossing, c.begins, data.gradient_log_decay + c.row);
    }
  }

  /// to [rows, out] = the product of rows a [rows, in] and the state's gradient after the chunk (or its transpose), by
  /// what is left of each row there.
  void later(const Chunk& c, Transpose transposed, std::int64_t out, std::int64_t in, const T* a, std::int64_t stride,
             T* to) const {
    if (c.ends) {
      std::fill_n(to, c.rows * out, T{0});
      return;
    }
    blas::gemm(Transpose::no, transposed, c.rows, out, in, T{1}, a, stride, state, plan.value_width, T{0}, to, out);
    if (plan.log_decay == nullptr) return;
    for (std::int64_t t = 0; t < c.rows; ++t) scale(to + t * out, gates.after(t), out);
  }
};

/// Calls body(walk) for every document that is looked up, in parallel.
template <class T, class Body>
void for_each_walk(const CausalLookupPlan<T>& plan, const CausalLookupBackward<T>& data, Body&& body) {
  const std::vector<LookedUp> documents = looked_up(plan.order);
  parallel_for(static_cast<std::int64_t>(documents.size()), 1, [&](std::int64_t document, std::int64_t) {
    const LookedUp& at = documents[static_cast<std::size_t>(document)];
    const std::int64_t state = plan.width * plan.value_width, queries = kGroup * plan.width,
                       gradients = kGroup * plan.value_width, products = kGroup * kChunk;
    static_assert(kGroup >= kChunk);  // what holds a group's rows holds a chunk's
    Scratch<T> room(state + 2 * queries + 2 * gradients + 2 * products);
    Scratch<double> read;
    if (data.gradient_log_decay != nullptr) read = Scratch<double>(at.end - at.first);
    T* next = room.data();
    const auto take = [&](std::int64_t size) { return std::exchange(next, next + size); };
    ChunkGates<T> gates;
    body(Walk<T>{plan, data, at, gates, take(state), take(queries), take(gradients), take(products), take(products),
                 take(queries), take(gradients), read.data()});
  });
}

}  // namespace

template <class T>
void causal_lookup_forward(const CausalLookupPlan<T>& plan, T* output) {
  for_each_walk(plan, CausalLookupBackward<T>(), [&](const Walk<T>& walk) { walk.forward(output); });
}

template <class T>
void causal_lookup_backward(const CausalLookupPlan<T>& plan, const CausalLookupBackward<T>& data) {
  for_each_walk(plan, data, [](const Walk<T>& walk) { walk.backward(); });
}

template void causal_lookup_forward(const CausalLookupPlan<float>&, float*);
template void causal_lookup_forward(const CausalLookupPlan<double>&, double*);
template void causal_lookup_backward(const CausalLookupPlan<float>&, const CausalLookupBackward<float>&);
template void causal_lookup_backward(const CausalLookupPlan<double>&, const CausalLookupBackward<double>&);

}  // namespace tally::kernels
