#pragma once

#include <cstdint>
#include <span>

#include "tally/ops/kernels/softmax_attention.h"

namespace tally::kernels {

/// A gate of each row and memory: rows `row_stride` elements apart (0: all alike), those of memories `memory_stride`.
template <class T>
struct GateRows {
  T* data = nullptr;
  std::int64_t row_stride = 0, memory_stride = 0;
  const T* at(std::int64_t row, std::int64_t memory) const { return data + row * row_stride + memory * memory_stride; }
};

/// What a number of log_decay lets decay.
enum class DecayOf : std::uint8_t {
  state,   ///< the whole state of a memory
  keys,    ///< a row of it, of `width`: a channel of keys
  values,  ///< a column of it, of `value_width`: a channel of values; no delta
};

/// One call of linear attention with an update rule over packed sequences: what forward and backward share.
template <class T>
struct LinearAttentionPlan {
  std::span<const std::int64_t> bounds;  ///< sequence i occupies rows [bounds[i], bounds[i + 1])
  std::int64_t heads = 1;                ///< of queries: each memory is read by heads / memories of them
  std::int64_t memories = 1;             ///< heads of keys and values
  std::int64_t width = 0;                ///< of a query's or key's head
  std::int64_t value_width = 0;          ///< of a value's head
  double scale = 1;                      ///< of queries
  bool delta = false;                    ///< a row writes what its value differs by from what the memory holds
  bool bidirectional = false;            ///< every row reads the whole sequence: no decays, no delta
  DecayOf decay_of = DecayOf::state;     ///< log_decay has `decay_width()` numbers of each memory
  MatrixRows<const T> q, k, v;
  GateRows<const T> log_decay;       ///< null: nothing decays
  GateRows<const T> gain;            ///< null: 1
  const T* initial_state = nullptr;  ///< [sequences, memories, width, value_width]; null: 0

  std::int64_t state_size() const { return width * value_width; }
  std::int64_t group() const { return heads / memories; }
  std::int64_t decay_width() const {
    return decay_of == DecayOf::state ? 1 : decay_of == DecayOf::keys ? width : value_width;
  }
};

/// output [T, heads * value_width]; final_state [sequences, memories, width, value_width] unless null. Chunks of
/// `chunk` rows, at most 64; 1 is the recurrence row by row. Parallel over sequences and memories.
template <class T>
void linear_attention_forward(const LinearAttentionPlan<T>& plan, std::int64_t chunk, T* output, T* final_state);

/// What backward reads and writes: dense; any gradient may be null, gradient_final_state too.
template <class T>
struct LinearAttentionBackward {
  const T* gradient_output = nullptr;
  const T* gradient_final_state = nullptr;
  T* gradient_q = nullptr;
  T* gradient_k = nullptr;
  T* gradient_v = nullptr;
  T* gradient_log_decay = nullptr;  ///< [T, memories * decay_width]
  T* gradient_gain = nullptr;       ///< [T, memories]
  T* gradient_initial_state = nullptr;
};

/// Walks forward for the states before chunks, then back once with the state's gradient. Kept are the states of 128
/// chunks and of every 128th.
template <class T>
void linear_attention_backward(const LinearAttentionPlan<T>& plan, std::int64_t chunk,
                               const LinearAttentionBackward<T>& data);

/// The same by the definition: row by row in double, backward with every state kept.
template <class T>
void naive_linear_attention_forward(const LinearAttentionPlan<T>& plan, T* output, T* final_state);
template <class T>
void naive_linear_attention_backward(const LinearAttentionPlan<T>& plan, const LinearAttentionBackward<T>& data);

/// Gradients of gates that rows or memories share, from those of each, x [rows, columns]: to [columns], or [rows].
template <class T>
void sum_over_rows(const T* x, std::int64_t rows, std::int64_t columns, T* to);
template <class T>
void sum_over_columns(const T* x, std::int64_t rows, std::int64_t columns, T* to);

}  // namespace tally::kernels
