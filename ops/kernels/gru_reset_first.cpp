#include <algorithm>

#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/gru.h"
#include "tally/ops/kernels/step_groups.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

/// The state before a row.
template <class T>
void copy_previous(const GruPlan<T>& plan, std::int64_t sequence, std::int64_t step, const T* output, T* to) {
  const std::int64_t row = plan.bounds[static_cast<std::size_t>(sequence)] + step;
  if (step > 0) {
    std::copy_n(output + (row - 1) * plan.width, plan.width, to);
  } else if (plan.initial != nullptr) {
    std::copy_n(plan.initial + sequence * plan.width, plan.width, to);
  } else {
    std::fill_n(to, plan.width, T{0});
  }
}

}  // namespace

template <class T>
void gru_reset_first_forward(const GruPlan<T>& plan, const T* products, const T* bias, T* output, T* saved) {
  const std::int64_t width = plan.width;
  const StepMatrix<T> gates_matrix(plan.weight, width, Transpose::yes, width, 2 * width);
  const StepMatrix<T> fresh_matrix(plan.weight + 2 * width * width, width, Transpose::yes, width, width);
  for_each_step_group(plan.bounds, [&](const StepGroup& group) {
    Scratch<T> previous(group.count * width), gates(group.count * 2 * width), reset(group.count * width),
        fresh(group.count * width);
    for (std::int64_t t = 0; t < length_of(plan.bounds, group.members[0]); ++t) {
      const std::int64_t alive = living(plan.bounds, group, t);
      const auto row = [&](std::int64_t i) { return plan.bounds[static_cast<std::size_t>(group.members[i])] + t; };
      // What the input and the bias give gates, where the state's products are then added.
      const auto start = [&](std::int64_t i, std::int64_t from, std::int64_t count, T* to) {
        const T* x = products + row(i) * 3 * width + from;
        for (std::int64_t j = 0; j < count; ++j) to[j] = x[j] + (bias == nullptr ? T{0} : bias[from + j]);
      };
      for (std::int64_t i = 0; i < alive; ++i) {
        copy_previous(plan, group.members[i], t, output, previous.data() + i * width);
        start(i, 0, 2 * width, gates.data() + i * 2 * width);
        start(i, 2 * width, width, fresh.data() + i * width);
      }
      gates_matrix.add_product(alive, previous.data(), gates.data());
      unary(UnaryOp::sigmoid, gates.data(), gates.data(), alive * 2 * width);
      for (std::int64_t i = 0; i < alive; ++i) {
        const T *r = gates.data() + i * 2 * width, *h = previous.data() + i * width;
        for (std::int64_t j = 0; j < width; ++j) reset.data()[i * width + j] = r[j] * h[j];
      }
      fresh_matrix.add_product(alive, reset.data(), fresh.data());
      unary(UnaryOp::tanh, fresh.data(), fresh.data(), alive * width);
      for (std::int64_t i = 0; i < alive; ++i) {
        const T *h = previous.data() + i * width, *z = gates.data() + i * 2 * width + width,
                *n = fresh.data() + i * width;
        T* to = output + row(i) * width;
        for (std::int64_t j = 0; j < width; ++j) to[j] = n[j] + z[j] * (h[j] - n[j]);
        if (saved == nullptr) continue;
        T* kept = saved + row(i) * kGruSaved * width;
        std::copy_n(gates.data() + i * 2 * width, 2 * width, kept);
        std::copy_n(n, width, kept + 2 * width);
        std::copy_n(reset.data() + i * width, width, kept + 3 * width);
      }
    }
  });
}

template <class T>
void gru_reset_first_backward(const GruPlan<T>& plan, const GruBackward<T>& data) {
  const std::int64_t width = plan.width;
  const StepMatrix<T> gates_matrix(plan.weight, width, Transpose::no, 2 * width, width);
  const StepMatrix<T> fresh_matrix(plan.weight + 2 * width * width, width, Transpose::no, width, width);
  for_each_step_group(plan.bounds, [&](const StepGroup& group) {
    Scratch<T> previous(group.count * width), gates(group.count * 2 * width), fresh(group.count * width),
        reset(group.count * width);
    // Of the state after the step at hand; sequences that have not begun to end get nothing.
    Scratch<T> carry = Scratch<T>::zeros(group.count * width);
    for (std::int64_t t = length_of(plan.bounds, group.members[0]) - 1; t >= 0; --t) {
      const std::int64_t alive = living(plan.bounds, group, t);
      const auto row = [&](std::int64_t i) { return plan.bounds[static_cast<std::size_t>(group.members[i])] + t; };
      for (std::int64_t i = 0; i < alive; ++i) {
        T *h = previous.data() + i * width, *ahead = carry.data() + i * width;
        copy_previous(plan, group.members[i], t, data.output, h);
        const T *kept = data.saved + row(i) * kGruSaved * width, *gy = data.gradient_output + row(i) * width;
        T *gn = fresh.data() + i * width, *gz = gates.data() + i * 2 * width + width;
        for (std::int64_t j = 0; j < width; ++j) {
          const T state = gy[j] + ahead[j], z = kept[width + j], n = kept[2 * width + j];
          gn[j] = state * (1 - z) * (1 - n) * (1 + n);
          gz[j] = state * (h[j] - n) * z * (1 - z);
          ahead[j] = state * z;
        }
      }
      std::fill_n(reset.data(), alive * width, T{0});
      fresh_matrix.add_product(alive, fresh.data(), reset.data());
      for (std::int64_t i = 0; i < alive; ++i) {
        const T *h = previous.data() + i * width, *r = data.saved + row(i) * kGruSaved * width,
                *of_reset = reset.data() + i * width;
        T *gr = gates.data() + i * 2 * width, *ahead = carry.data() + i * width;
        for (std::int64_t j = 0; j < width; ++j) {
          gr[j] = of_reset[j] * h[j] * r[j] * (1 - r[j]);
          ahead[j] += of_reset[j] * r[j];
        }
        T* to = data.gradient_products + row(i) * 3 * width;
        std::copy_n(gr, 2 * width, to);
        std::copy_n(fresh.data() + i * width, width, to + 2 * width);
        std::copy_n(fresh.data() + i * width, width, data.gradient_hidden + row(i) * width);
      }
      gates_matrix.add_product(alive, gates.data(), carry.data());
    }
    for (std::int64_t i = 0; i < group.count && data.gradient_initial != nullptr; ++i) {
      std::copy_n(carry.data() + i * width, width, data.gradient_initial + group.members[i] * width);
    }
  });
}

template void gru_reset_first_forward(const GruPlan<float>&, const float*, const float*, float*, float*);
template void gru_reset_first_forward(const GruPlan<double>&, const double*, const double*, double*, double*);
template void gru_reset_first_backward(const GruPlan<float>&, const GruBackward<float>&);
template void gru_reset_first_backward(const GruPlan<double>&, const GruBackward<double>&);

}  // namespace tally::kernels
