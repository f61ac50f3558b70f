#include "tally/ops/attention/softmax_attention_materialized.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/dropout.h"

namespace tally::ops {
namespace {

using blas::Transpose;

/// A call as plain numbers, and where the matrix [L, L] of every sequence and head begins among all.
struct Call {
  detail::AttentionSizes sizes;
  AttentionOptions options;
  Offsets offsets;
  std::vector<std::int64_t> starts;

  std::int64_t matrices() const { return offsets.count() * sizes.heads; }
};

Call describe(const detail::AttentionSizes& sizes, const AttentionOptions& options, const Offsets& offsets) {
  Call call{sizes, options, offsets, {0}};
  for (std::int64_t m = 0; m < call.matrices(); ++m) {
    const std::int64_t length = offsets.length(m / sizes.heads);
    call.starts.push_back(call.starts.back() + length * length);
  }
  return call;
}

/// Sets the dropped ones among a row's probabilities (or their gradients) to zero and scales the others.
template <class T>
void drop(const Call& call, std::int64_t row, std::int64_t head, std::int64_t length,
          std::vector<kernels::MaskBits>& bits, T* probabilities) {
  const DropoutOptions& dropout = call.options.dropout;
  random_bits(dropout.key.fold_in(static_cast<std::uint64_t>(head)),
              dropout.first_row + static_cast<std::uint64_t>(row), 0, length, bits.data());
  const kernels::DropoutMask mask = kernels::dropout_mask(dropout.rate, dropout.key);
  const auto scale = static_cast<T>(mask.scale);
  for (std::int64_t j = 0; j < length; ++j) {
    probabilities[j] = bits[static_cast<std::size_t>(j)] >= mask.threshold ? probabilities[j] * scale : T{0};
  }
}

bool visible(const AttentionOptions& options, std::int64_t query, std::int64_t key) {
  if (options.mask == AttentionMask::causal && key > query) return false;
  return options.window == 0 || std::abs(query - key) < options.window;
}

/// Probabilities before dropout, and the output.
template <class T>
void forward(const Call& call, const T* q, const T* k, const T* v, T* probabilities, T* output) {
  const auto [heads, width, value_width, scale] = call.sizes;
  const std::int64_t ld = heads * width, value_ld = heads * value_width;
  parallel_for(
      call.matrices(), 1,
      [&, heads = heads, width = width, value_width = value_width, scale = scale](std::int64_t m, std::int64_t) {
        const std::int64_t row = call.offsets.at(m / heads), length = call.offsets.length(m / heads), head = m % heads;
        T* p = probabilities + call.starts[static_cast<std::size_t>(m)];
        blas::gemm(Transpose::no, Transpose::yes, length, length, width, static_cast<T>(scale),
                   q + row * ld + head * width, ld, k + row * ld + head * width, ld, T{0}, p, length);
        for (std::int64_t i = 0; i < length; ++i) {
          T* pi = p + i * length;
          for (std::int64_t j = 0; j < length; ++j) {
            if (!visible(call.options, i, j)) pi[j] = -std::numeric_limits<T>::infinity();
          }
          const T largest = kernels::max_value(pi, length);
          const double sum = kernels::exp_and_sum(pi, pi, T{1}, largest, length);
          kernels::scale(pi, static_cast<T>(1 / sum), length);
        }
        std::vector<T> dropped;
        const T* weights = p;
        if (call.options.dropout.rate > 0) {
          dropped.assign(p, p + length * length);
          std::vector<kernels::MaskBits> bits(static_cast<std::size_t>(length));
          for (std::int64_t i = 0; i < length; ++i)
            drop(call, row + i, head, length, bits, dropped.data() + i * length);
          weights = dropped.data();
        }
        blas::gemm(Transpose::no, Transpose::no, length, value_width, length, T{1}, weights, length,
                   v + row * value_ld + head * value_width, value_ld, T{0},
                   output + row * value_ld + head * value_width, value_ld);
      });
}

/// The gradients of q, k and v.
template <class T>
void backward(const Call& call, const T* q, const T* k, const T* v, const T* probabilities, const T* gy, T* gq, T* gk,
              T* gv) {
  const auto [heads, width, value_width, scale] = call.sizes;
  const std::int64_t ld = heads * width, value_ld = heads * value_width;
  parallel_for(
      call.matrices(), 1,
      [&, heads = heads, width = width, value_width = value_width, scale = scale](std::int64_t m, std::int64_t) {
        const std::int64_t row = call.offsets.at(m / heads), length = call.offsets.length(m / heads), head = m % heads;
        const std::int64_t at = row * ld + head * width, value_at = row * value_ld + head * value_width;
        const T* p = probabilities + call.starts[static_cast<std::size_t>(m)];
        const bool dropout = call.options.dropout.rate > 0;
        std::vector<kernels::MaskBits> bits(static_cast<std::size_t>(dropout ? length : 0));
        std::vector<T> dropped;
        if (dropout) {
          dropped.assign(p, p + length * length);
          for (std::int64_t i = 0; i < length; ++i)
            drop(call, row + i, head, length, bits, dropped.data() + i * length);
        }
        blas::gemm(Transpose::yes, Transpose::no, length, value_width, length, T{1}, dropout ? dropped.data() : p,
                   length, gy + value_at, value_ld, T{0}, gv + value_at, value_ld);

        // A tensor, as a matrix this large must count as memory of tensors.
        Tensor gradient_probabilities({length, length}, dtype_of<T>);
        T* const gp = gradient_probabilities.mutable_data<T>();
        blas::gemm(Transpose::no, Transpose::yes, length, length, value_width, T{1}, gy + value_at, value_ld,
                   v + value_at, value_ld, T{0}, gp, length);
        for (std::int64_t i = 0; i < length; ++i) {
          const T* pi = p + i * length;
          T* gi = gp + i * length;
          if (dropout) drop(call, row + i, head, length, bits, gi);
          const T mean = kernels::dot(pi, gi, length);
          for (std::int64_t j = 0; j < length; ++j) gi[j] = static_cast<T>(scale) * pi[j] * (gi[j] - mean);
        }
        blas::gemm(Transpose::no, Transpose::no, length, width, length, T{1}, gp, length, k + at, ld, T{0}, gq + at,
                   ld);
        blas::gemm(Transpose::yes, Transpose::no, length, width, length, T{1}, gp, length, q + at, ld, T{0}, gk + at,
                   ld);
      });
}

struct MaterializedAttentionRule {
  static constexpr std::string_view name = "softmax_attention_materialized";
  Call call;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, k, v, probabilities;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    Tensor gq(q.get().shape(), gy.dtype()), gk(q.get().shape(), gy.dtype()), gv(v.get().shape(), gy.dtype());
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      ops::backward(call, q.get().data<T>(), k.get().data<T>(), v.get().data<T>(), probabilities.get().data<T>(),
                    gy.data<T>(), gq.mutable_data<T>(), gk.mutable_data<T>(), gv.mutable_data<T>());
    });
    g.give(0, std::move(gq));
    g.give(1, std::move(gk));
    g.give(2, std::move(gv));
  }
};

}  // namespace

Var softmax_attention_materialized(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                                   const AttentionOptions& options) {
  constexpr std::string_view kName = MaterializedAttentionRule::name;
  const detail::AttentionSizes sizes = detail::check_attention(kName, q, k, v, offsets, options);
  Call call = describe(sizes, options, offsets);
  const Tensor qt = q.value().contiguous(), kt = k.value().contiguous(), vt = v.value().contiguous();
  Tensor probabilities({call.starts.back()}, q.dtype()), output(vt.shape(), q.dtype());
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    forward(call, qt.data<T>(), kt.data<T>(), vt.data<T>(), probabilities.mutable_data<T>(), output.mutable_data<T>());
  });
  MaterializedAttentionRule rule{std::move(call), Saved(offsets.tensor()), Saved(qt), Saved(kt),
                                 Saved(vt),       Saved(probabilities)};
  return record(std::move(rule), {&q, &k, &v}, std::move(output));
}

void entries::add_softmax_attention_materialized(Catalog& catalog) {
  catalog.add(detail::attention_entry(
      "softmax_attention_materialized",
      "The textbook form of softmax_attention, which stores every matrix of probabilities: a baseline.",
      softmax_attention_materialized));
}

}  // namespace tally::ops
