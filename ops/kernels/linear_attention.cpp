#include "tally/ops/kernels/linear_attention.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/linear_attention_gates.h"
#include "tally/ops/kernels/state_readers.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t kPairs = kLookupChunk;
constexpr std::int64_t kSegment = 128;  // chunks whose states backward keeps
constexpr std::int64_t kSolved = 16;    // rows that are solved one by one

/// One memory of one sequence. Rooms of rows hold a chunk.
template <class T, class Decays>
class Walk {
 public:
  Walk(const LinearAttentionPlan<T>& plan, std::int64_t chunk, const LinearAttentionBackward<T>* data,
       std::int64_t sequence, std::int64_t memory)
      : plan_(plan),
        chunk_(chunk),
        data_(data),
        memory_(memory),
        row_(plan.bounds[static_cast<std::size_t>(sequence)]),
        length_(plan.bounds[static_cast<std::size_t>(sequence) + 1] - row_),
        at_((sequence * plan.memories + memory) * plan.state_size()),
        decays_(plan, data != nullptr && data->gradient_log_decay != nullptr),
        state_(plan.state_size()),
        written_(kPairs * plan.value_width),
        errors_(plan.delta ? kPairs * plan.value_width : 0),
        queries_(kPairs * plan.width),
        decayed_(kPairs * (kOfValues ? plan.value_width : plan.width)),
        answers_(kOfValues ? kPairs * plan.value_width : 0),
        pairs_(kPairs * kPairs),
        key_pairs_(plan.delta ? kPairs * kPairs : 0) {
    gains_.fill(1);
    if (data == nullptr) return;
    gradient_ = Scratch<T>(plan.state_size());
    slopes_ = Scratch<T>(kPairs * kPairs);
    of_written_ = Scratch<T>(kPairs * plan.value_width);
    if (plan.delta) of_errors_ = Scratch<T>(kPairs * plan.value_width);
    if (plan.delta) readers_ = StateReaders<T>(kPairs, plan.group() + 1, plan.width, plan.value_width);
    of_queries_ = Scratch<T>(kPairs * plan.width);
    of_keys_ = Scratch<T>(kPairs * plan.width);
  }

  void forward(T* output, T* final_state) {
    begin(state_.data());
    if (plan_.bidirectional) {
      for (std::int64_t c = 0; c < chunks(); ++c) advance(open(c), state_.data());
    }
    for (std::int64_t c = 0; c < chunks(); ++c) {
      const Chunk at = open(c);
      const MatrixRows<const T> written = plan_.bidirectional ? MatrixRows<const T>() : write(at, state_.data());
      for (std::int64_t head = first_head(); head < first_head() + plan_.group(); ++head) {
        const MatrixRows<const T> q = scaled(at, head);
        if constexpr (kOfValues) {
          answer(at, q, state_.data());
          multiply_rows(at, q, keys(at), pairs_.data());
          decays_.mix(pairs_.data(), written, answers_.data());
          give(answers_.data(), at.rows, plan_.value_width, T{1}, output, at.row, head, plan_.heads);
          continue;
        }
        T* y = output + at.row * plan_.heads * plan_.value_width + head * plan_.value_width;
        const std::int64_t stride = plan_.heads * plan_.value_width;
        const MatrixRows<const T> asked = plan_.bidirectional ? q : decays_.before(q, decayed_.data());
        multiply(at.rows, plan_.value_width, plan_.width, asked, state_.data(), at.empty, y, stride);
        if (plan_.bidirectional) continue;
        decays_.pairs(q, keys(at), pairs_.data());
        blas::gemm(Transpose::no, Transpose::no, at.rows, plan_.value_width, at.rows, T{1}, pairs_.data(), kPairs,
                   written.data, written.stride, T{1}, y, stride);
      }
      if (!plan_.bidirectional && (c + 1 < chunks() || final_state != nullptr)) add(at, written, state_.data());
    }
    if (final_state != nullptr) std::copy_n(state_.data(), plan_.state_size(), final_state + at_);
  }

  void backward() {
    if (data_->gradient_final_state != nullptr) {
      std::copy_n(data_->gradient_final_state + at_, plan_.state_size(), gradient_.data());
    } else {
      gradient_.clear();
      unread_ = true;
    }
    if (plan_.bidirectional) {
      backward_of_one_sum();
    } else {
      const std::int64_t segments = block_count(chunks(), kSegment);
      Scratch<T> starts(std::max<std::int64_t>(segments, 1) * plan_.state_size()),
          states(std::min(chunks(), kSegment) * plan_.state_size());
      const auto state = [&](Scratch<T>& all, std::int64_t i) { return all.data() + i * plan_.state_size(); };
      begin(state(starts, 0));
      for (std::int64_t segment = 0; segment + 1 < segments; ++segment) {
        T* next =
            std::copy_n(state(starts, segment), plan_.state_size(), state(starts, segment + 1)) - plan_.state_size();
        for (std::int64_t c = segment * kSegment; c < (segment + 1) * kSegment; ++c) advance(open(c), next);
      }
      for (std::int64_t segment = segments - 1; segment >= 0; --segment) {
        const std::int64_t first = segment * kSegment, count = std::min(kSegment, chunks() - first);
        std::copy_n(state(starts, segment), plan_.state_size(), state(states, 0));
        for (std::int64_t i = 0; i + 1 < count; ++i) {
          std::copy_n(state(states, i), plan_.state_size(), state(states, i + 1));
          advance(open(first + i), state(states, i + 1));
        }
        for (std::int64_t i = count - 1; i >= 0; --i) {
          const Chunk at = open(first + i);
          if constexpr (kOfValues) {
            backward_through_values(at, state(states, i));
          } else {
            backward_of(at, state(states, i));
          }
          if (data_->gradient_log_decay != nullptr)
            decays_.slopes(data_->gradient_log_decay + (at.row * plan_.memories + memory_) * plan_.decay_width(),
                           plan_.memories * plan_.decay_width());
        }
      }
    }
    if (data_->gradient_initial_state != nullptr)
      std::copy_n(gradient_.data(), plan_.state_size(), data_->gradient_initial_state + at_);
  }

 private:
  static constexpr bool kOfValues = Decays::kOf == DecayOf::values;
  struct Chunk {
    std::int64_t row, rows;
    bool empty;  ///< nothing was written before, and no gradient is wanted of it
  };

  std::int64_t chunks() const { return block_count(length_, chunk_); }
  std::int64_t first_head() const { return memory_ * plan_.group(); }
  void begin(T* state) const {
    if (plan_.initial_state != nullptr) {
      std::copy_n(plan_.initial_state + at_, plan_.state_size(), state);
    } else {
      std::fill_n(state, plan_.state_size(), T{0});
    }
  }
  Chunk open(std::int64_t c) {
    const Chunk at{row_ + c * chunk_, std::min(chunk_, length_ - c * chunk_),
                   c == 0 && plan_.initial_state == nullptr && !plan_.bidirectional};
    decays_.load(memory_, at.row, at.rows, at.empty);
    if (plan_.gain.data != nullptr) {
      for (std::int64_t i = 0; i < at.rows; ++i)
        gains_[static_cast<std::size_t>(i)] = *plan_.gain.at(at.row + i, memory_);
    }
    return at;
  }
  T gain(std::int64_t i) const { return gains_[static_cast<std::size_t>(i)]; }
  MatrixRows<const T> keys(const Chunk& at) const {
    return {plan_.k.data + at.row * plan_.k.stride + memory_ * plan_.width, plan_.k.stride};
  }
  MatrixRows<const T> values(const Chunk& at) const {
    return {plan_.v.data + at.row * plan_.v.stride + memory_ * plan_.value_width, plan_.v.stride};
  }
  MatrixRows<const T> scaled(const Chunk& at, std::int64_t head) {
    const T by = static_cast<T>(plan_.scale), *q = plan_.q.data + at.row * plan_.q.stride + head * plan_.width;
    for (std::int64_t i = 0; i < at.rows; ++i) {
      for (std::int64_t c = 0; c < plan_.width; ++c)
        queries_.data()[i * plan_.width + c] = by * q[i * plan_.q.stride + c];
    }
    return {queries_.data(), plan_.width};
  }

  /// to [rows, columns] = a [rows, inner] state, or 0 for a state of zeros.
  static void multiply(std::int64_t rows, std::int64_t columns, std::int64_t inner, MatrixRows<const T> a,
                       const T* state, bool zero, T* to, std::int64_t stride) {
    if (zero) {
      for (std::int64_t i = 0; i < rows; ++i) std::fill_n(to + i * stride, columns, T{0});
      return;
    }
    blas::gemm(Transpose::no, Transpose::no, rows, columns, inner, T{1}, a.data, a.stride, state, columns, T{0}, to,
               stride);
  }
  /// to [rows, width] = a [rows, value_width] state^T.
  void multiply_back(std::int64_t rows, MatrixRows<const T> a, const T* state, T* to) const {
    blas::gemm(Transpose::no, Transpose::yes, rows, plan_.width, plan_.value_width, T{1}, a.data, a.stride, state,
               plan_.value_width, T{0}, to, plan_.width);
  }
  /// state += sign a^T b.
  void add_products(std::int64_t rows, T sign, MatrixRows<const T> a, MatrixRows<const T> b, T* state) const {
    blas::gemm(Transpose::yes, Transpose::no, plan_.width, plan_.value_width, rows, sign, a.data, a.stride, b.data,
               b.stride, T{1}, state, plan_.value_width);
  }

  /// What the rows write beside their keys: gain times value, or times the error of what the memory holds at the key.
  MatrixRows<const T> write(const Chunk& at, const T* state) {
    const std::int64_t width = plan_.value_width;
    const MatrixRows<const T> v = values(at);
    if (!plan_.delta) {
      if (plan_.gain.data == nullptr) return v;
      for (std::int64_t i = 0; i < at.rows; ++i) {
        for (std::int64_t c = 0; c < width; ++c) written_.data()[i * width + c] = gain(i) * v.data[i * v.stride + c];
      }
      return {written_.data(), width};
    }
    // Row i's error is v_i - what is left of the state - sum over j < i of pairs[i, j] written_j: solved row after row.
    T *errors = errors_.data(), *written = written_.data();
    for (std::int64_t i = 0; i < at.rows; ++i) std::copy_n(v.data + i * v.stride, width, errors + i * width);
    if (!at.empty) {
      const MatrixRows<const T> asked = decays_.before(keys(at), decayed_.data());
      blas::gemm(Transpose::no, Transpose::no, at.rows, width, plan_.width, T{-1}, asked.data, asked.stride, state,
                 width, T{1}, errors, width);
    }
    T* pairs = key_pairs_.data();
    decays_.pairs(keys(at), keys(at), pairs);
    for (std::int64_t i = 0; i < at.rows; ++i) pairs[i * kPairs + i] = 0;
    for (std::int64_t first = 0; first < at.rows; first += kSolved) {
      const std::int64_t end = std::min(first + kSolved, at.rows);
      blas::gemm(Transpose::no, Transpose::no, end - first, width, first, T{-1}, pairs + first * kPairs, kPairs,
                 written, width, T{1}, errors + first * width, width);
      for (std::int64_t i = first; i < end; ++i) {
        for (std::int64_t j = first; j < i; ++j)
          axpy(errors + i * width, -pairs[i * kPairs + j], written + j * width, width);
        for (std::int64_t c = 0; c < width; ++c) written[i * width + c] = gain(i) * errors[i * width + c];
      }
    }
    return {written, width};
  }
  /// From the gradients of what rows wrote, those of their errors.
  void solve_back(const Chunk& at, T* of_written, T* of_errors) const {
    const std::int64_t width = plan_.value_width;
    const T* pairs = key_pairs_.data();
    for (std::int64_t end = at.rows, first = 0; end > 0; end = first) {
      first = (end - 1) / kSolved * kSolved;
      blas::gemm(Transpose::yes, Transpose::no, end - first, width, at.rows - end, T{-1}, pairs + end * kPairs + first,
                 kPairs, of_errors + end * width, width, T{1}, of_written + first * width, width);
      for (std::int64_t i = end; i-- > first;) {
        for (std::int64_t l = i + 1; l < end; ++l)
          axpy(of_written + i * width, -pairs[l * kPairs + i], of_errors + l * width, width);
        for (std::int64_t c = 0; c < width; ++c) of_errors[i * width + c] = gain(i) * of_written[i * width + c];
      }
    }
  }

  /// The state after the chunk, from what its rows write.
  void add(const Chunk& at, MatrixRows<const T> written, T* state) {
    decays_.decay_state(state);
    if constexpr (kOfValues) {
      add_products(at.rows, T{1}, keys(at), decays_.after(written, decayed_.data()), state);
    } else {
      add_products(at.rows, T{1}, decays_.after(keys(at), decayed_.data()), written, state);
    }
  }
  void advance(const Chunk& at, T* state) { add(at, write(at, state), state); }

  MatrixRows<const T> of_output(const Chunk& at, std::int64_t head) const {
    const std::int64_t stride = plan_.heads * plan_.value_width;
    return {data_->gradient_output + at.row * stride + head * plan_.value_width, stride};
  }
  /// Writes rows [rows, width] times `by`, to a column block of a gradient that may not be wanted.
  static void give(const T* x, std::int64_t rows, std::int64_t width, T by, T* to, std::int64_t row, std::int64_t block,
                   std::int64_t blocks) {
    if (to == nullptr) return;
    for (std::int64_t i = 0; i < rows; ++i) {
      T* out = to + ((row + i) * blocks + block) * width;
      for (std::int64_t c = 0; c < width; ++c) out[c] = by * x[i * width + c];
    }
  }
  void give_queries(const Chunk& at, std::int64_t head) const {
    give(of_queries_.data(), at.rows, plan_.width, static_cast<T>(plan_.scale), data_->gradient_q, at.row, head,
         plan_.heads);
  }
  void give_keys(const Chunk& at) const {
    give(of_keys_.data(), at.rows, plan_.width, T{1}, data_->gradient_k, at.row, memory_, plan_.memories);
  }
  /// The gradients of values and gains: `factor` is what the gain multiplied, `of_factor` its gradient.
  void give_values(const Chunk& at, MatrixRows<const T> factor, const T* of_factor) const {
    const std::int64_t width = plan_.value_width;
    for (std::int64_t i = 0; i < at.rows && data_->gradient_gain != nullptr; ++i)
      data_->gradient_gain[(at.row + i) * plan_.memories + memory_] =
          dot(of_written_.data() + i * width, factor.data + i * factor.stride, width);
    give(of_factor, at.rows, width, T{1}, data_->gradient_v, at.row, memory_, plan_.memories);
  }
  /// of_written times the gains, in the room of what was written.
  const T* gained(const Chunk& at) {
    const std::int64_t width = plan_.value_width;
    if (plan_.gain.data == nullptr) return of_written_.data();
    for (std::int64_t i = 0; i < at.rows; ++i) {
      for (std::int64_t c = 0; c < width; ++c)
        written_.data()[i * width + c] = gain(i) * of_written_.data()[i * width + c];
    }
    return written_.data();
  }

  /// A chunk after `state`: gradients of its rows, and gradient_ from after the chunk to before it.
  void backward_of(const Chunk& at, const T* state) {
    const std::int64_t width = plan_.width, value_width = plan_.value_width;
    const MatrixRows<const T> k = keys(at), written = write(at, state);
    T *const of_written = of_written_.data(), *const of_keys = of_keys_.data(), *const of_queries = of_queries_.data();
    // By what comes after the chunk.
    multiply(at.rows, value_width, width, decays_.after(k, decayed_.data()), gradient_.data(), unread_, of_written,
             value_width);
    if (unread_) {
      std::fill_n(of_keys, at.rows * width, T{0});
    } else {
      multiply_back(at.rows, written, gradient_.data(), of_keys);
      decays_.after({of_keys, width}, of_keys);
      decays_.note_after(k, of_keys);
      decays_.note_state(state, gradient_.data());
      decays_.decay_state(gradient_.data());
    }
    unread_ = false;
    // By the queries.
    for (std::int64_t head = first_head(); head < first_head() + plan_.group(); ++head) {
      const MatrixRows<const T> q = scaled(at, head), gy = of_output(at, head);
      decays_.pairs(q, k, pairs_.data());
      blas::gemm(Transpose::no, Transpose::yes, at.rows, at.rows, value_width, T{1}, gy.data, gy.stride, written.data,
                 written.stride, T{0}, slopes_.data(), kPairs);
      blas::gemm(Transpose::yes, Transpose::no, at.rows, value_width, at.rows, T{1}, pairs_.data(), kPairs, gy.data,
                 gy.stride, T{1}, of_written, value_width);
      read_back(at, state, gy, q, of_queries);
      decays_.pairs_backward(pairs_.data(), slopes_.data(), q, k, of_queries, of_keys);
      give_queries(at, head);
      if (at.empty) continue;
      const MatrixRows<const T> left = decays_.before(q, decayed_.data());
      if (plan_.delta) {
        readers_.set(head - first_head(), at.rows, left, gy, T{1});
      } else {
        add_products(at.rows, T{1}, left, gy, gradient_.data());
      }
    }
    if (!plan_.delta) {
      give_values(at, values(at), gained(at));
      give_keys(at);
    } else {
      // What was written is read to find errors, too.
      T* of_errors = of_errors_.data();
      solve_back(at, of_written, of_errors);
      blas::gemm(Transpose::no, Transpose::yes, at.rows, at.rows, value_width, T{-1}, of_errors, value_width,
                 written.data, written.stride, T{0}, slopes_.data(), kPairs);
      for (std::int64_t i = 0; i < at.rows; ++i) std::fill_n(slopes_.data() + i * kPairs + i, at.rows - i, T{0});
      read_back(at, state, {of_errors, value_width}, k, of_queries, T{-1});
      decays_.pairs_backward(key_pairs_.data(), slopes_.data(), k, k, of_queries, of_keys);
      add_into(of_keys, of_queries, at.rows * width);
      if (!at.empty) {
        readers_.set(plan_.group(), at.rows, decays_.before(k, decayed_.data()), {of_errors, value_width}, T{-1});
        readers_.add_to(gradient_.data(), at.rows);
      }
      give_values(at, {errors_.data(), value_width}, of_errors);
      give_keys(at);
    }
  }
  /// The same where channels of values decay: between what rows wrote and gradients of the output.
  void backward_through_values(const Chunk& at, const T* state) {
    const std::int64_t width = plan_.width, value_width = plan_.value_width;
    const MatrixRows<const T> k = keys(at), written = write(at, state);
    T *const of_written = of_written_.data(), *const of_keys = of_keys_.data(), *const of_queries = of_queries_.data();
    // By what comes after the chunk.
    multiply(at.rows, value_width, width, k, gradient_.data(), unread_, of_written, value_width);
    if (unread_) {
      std::fill_n(of_keys, at.rows * width, T{0});
    } else {
      decays_.after({of_written, value_width}, of_written);
      decays_.note_after(written, of_written);
      multiply_back(at.rows, decays_.after(written, decayed_.data()), gradient_.data(), of_keys);
      decays_.note_state(state, gradient_.data());
      decays_.decay_state(gradient_.data());
    }
    unread_ = false;
    // By the queries.
    for (std::int64_t head = first_head(); head < first_head() + plan_.group(); ++head) {
      const MatrixRows<const T> q = scaled(at, head), gy = of_output(at, head);
      decays_.pairs(gy, written, slopes_.data());
      multiply_rows(at, q, k, pairs_.data());
      decays_.pairs_backward(nullptr, pairs_.data(), gy, written, nullptr, of_written);
      if (at.empty) {
        std::fill_n(of_queries, at.rows * width, T{0});
      } else {
        answer(at, q, state);
        decays_.note_before(gy, answers_.data());
        const MatrixRows<const T> left = decays_.before(gy, decayed_.data());
        multiply_back(at.rows, left, state, of_queries);
        add_products(at.rows, T{1}, q, left, gradient_.data());
      }
      blas::gemm(Transpose::no, Transpose::no, at.rows, width, at.rows, T{1}, slopes_.data(), kPairs, k.data, k.stride,
                 T{1}, of_queries, width);
      blas::gemm(Transpose::yes, Transpose::no, at.rows, width, at.rows, T{1}, slopes_.data(), kPairs, q.data, q.stride,
                 T{1}, of_keys, width);
      give_queries(at, head);
    }
    give_values(at, values(at), gained(at));
    give_keys(at);
  }
  /// answers_ = what queries read of the state before the chunk, where channels of values decay.
  void answer(const Chunk& at, MatrixRows<const T> q, const T* state) {
    multiply(at.rows, plan_.value_width, plan_.width, q, state, at.empty, answers_.data(), plan_.value_width);
    if (!at.empty) decays_.before({answers_.data(), plan_.value_width}, answers_.data());
  }
  /// pairs[i, j] = <q_i, k_j> for j <= i, else 0.
  void multiply_rows(const Chunk& at, MatrixRows<const T> q, MatrixRows<const T> k, T* pairs) const {
    blas::gemm(Transpose::no, Transpose::yes, at.rows, at.rows, plan_.width, T{1}, q.data, q.stride, k.data, k.stride,
               T{0}, pairs, kPairs);
    for (std::int64_t i = 0; i < at.rows; ++i) std::fill_n(pairs + i * kPairs + i + 1, at.rows - i - 1, T{0});
  }
  /// to = what is left of the state's product with gradients gy of what rows x read of it.
  void read_back(const Chunk& at, const T* state, MatrixRows<const T> gy, MatrixRows<const T> x, T* to, T sign = T{1}) {
    if (at.empty) {
      std::fill_n(to, at.rows * plan_.width, T{0});
      return;
    }
    blas::gemm(Transpose::no, Transpose::yes, at.rows, plan_.width, plan_.value_width, sign, gy.data, gy.stride, state,
               plan_.value_width, T{0}, to, plan_.width);
    decays_.before({to, plan_.width}, to);
    decays_.note_before(x, to);
  }

  void backward_of_one_sum() {
    begin(state_.data());
    for (std::int64_t c = 0; c < chunks(); ++c) {
      const Chunk at = open(c);
      advance(at, state_.data());
      for (std::int64_t head = first_head(); head < first_head() + plan_.group(); ++head)
        add_products(at.rows, T{1}, scaled(at, head), of_output(at, head), gradient_.data());
    }
    for (std::int64_t c = 0; c < chunks(); ++c) {
      const Chunk at = open(c);
      for (std::int64_t head = first_head(); head < first_head() + plan_.group(); ++head) {
        multiply_back(at.rows, of_output(at, head), state_.data(), of_queries_.data());
        give_queries(at, head);
      }
      multiply(at.rows, plan_.value_width, plan_.width, keys(at), gradient_.data(), false, of_written_.data(),
               plan_.value_width);
      multiply_back(at.rows, write(at, nullptr), gradient_.data(), of_keys_.data());
      give_values(at, values(at), gained(at));
      give_keys(at);
    }
  }

  const LinearAttentionPlan<T>& plan_;
  const std::int64_t chunk_;
  const LinearAttentionBackward<T>* data_;
  const std::int64_t memory_, row_, length_, at_;
  Decays decays_;
  std::array<T, static_cast<std::size_t>(kPairs)> gains_;
  Scratch<T> state_, written_, errors_;  ///< written, errors [rows, value_width]
  Scratch<T> queries_, decayed_;         ///< [rows, width]; decayed: of what decays
  Scratch<T> answers_;                   ///< [rows, value_width]
  Scratch<T> pairs_, key_pairs_;         ///< of queries and keys; of keys and keys
  Scratch<T> gradient_, slopes_;         ///< of the state; of pairs
  Scratch<T> of_written_, of_errors_, of_queries_, of_keys_;
  StateReaders<T> readers_;  ///< under a delta rule
  bool unread_ = false;      ///< gradient_ is 0: nothing reads what is written so far
};

/// Calls body(walk) for every memory of every sequence, in parallel.
template <class T, class Body>
void for_each_walk(const LinearAttentionPlan<T>& plan, std::int64_t chunk, const LinearAttentionBackward<T>* data,
                   Body&& body) {
  const std::int64_t sequences = static_cast<std::int64_t>(plan.bounds.size()) - 1;
  parallel_for(sequences * plan.memories, 1, [&](std::int64_t task, std::int64_t) {
    const std::int64_t sequence = task / plan.memories, memory = task % plan.memories;
    switch (plan.decay_of) {
      case DecayOf::state:
        return body(Walk<T, ScalarDecays<T>>(plan, chunk, data, sequence, memory));
      case DecayOf::keys:
        return body(Walk<T, ChannelDecays<T, DecayOf::keys>>(plan, chunk, data, sequence, memory));
      case DecayOf::values:
        return body(Walk<T, ChannelDecays<T, DecayOf::values>>(plan, chunk, data, sequence, memory));
    }
  });
}

}  // namespace

template <class T>
void linear_attention_forward(const LinearAttentionPlan<T>& plan, std::int64_t chunk, T* output, T* final_state) {
  for_each_walk<T>(plan, chunk, nullptr, [&](auto&& walk) { walk.forward(output, final_state); });
}

template <class T>
void linear_attention_backward(const LinearAttentionPlan<T>& plan, std::int64_t chunk,
                               const LinearAttentionBackward<T>& data) {
  for_each_walk<T>(plan, chunk, &data, [](auto&& walk) { walk.backward(); });
}

template void linear_attention_forward(const LinearAttentionPlan<float>&, std::int64_t, float*, float*);
template void linear_attention_forward(const LinearAttentionPlan<double>&, std::int64_t, double*, double*);
template void linear_attention_backward(const LinearAttentionPlan<float>&, std::int64_t,
                                        const LinearAttentionBackward<float>&);
template void linear_attention_backward(const LinearAttentionPlan<double>&, std::int64_t,
                                        const LinearAttentionBackward<double>&);

}  // namespace tally::kernels
