#include "tally/ops/kernels/lstm.h"

#include <algorithm>

#include "tally/ops/kernels/elementwise.h"
#include "tally/ops/kernels/step_groups.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

/// What a group's sequences begin with.
template <class T>
void copy_initial(const StepGroup& group, std::int64_t width, const T* initial, T* to) {
  for (std::int64_t i = 0; i < group.count; ++i) {
    if (initial == nullptr) {
      std::fill_n(to + i * width, width, T{0});
    } else {
      std::copy_n(initial + group.members[i] * width, width, to + i * width);
    }
  }
}

}  // namespace

template <class T>
void lstm_forward(const LstmPlan<T>& plan, const T* products, const T* bias, T* states, T* cells, T* saved) {
  const std::int64_t width = plan.width, all = 4 * width;
  const StepMatrix<T> matrix(plan.weight, width, Transpose::yes, width, all);
  for_each_step_group(plan.bounds, [&](const StepGroup& group) {
    // Of the group's sequences after the step at hand, which is before the next one.
    Scratch<T> state(group.count * width), cell(group.count * width), gates(group.count * all), bent(width);
    copy_initial(group, width, plan.initial_state, state.data());
    copy_initial(group, width, plan.initial_cell, cell.data());
    for (std::int64_t t = 0; t < length_of(plan.bounds, group.members[0]); ++t) {
      const std::int64_t alive = living(plan.bounds, group, t);
      const auto row = [&](std::int64_t i) { return plan.bounds[static_cast<std::size_t>(group.members[i])] + t; };
      for (std::int64_t i = 0; i < alive; ++i) {
        const T* x = products + row(i) * all;
        for (std::int64_t j = 0; j < all; ++j) gates.data()[i * all + j] = x[j] + (bias == nullptr ? T{0} : bias[j]);
      }
      matrix.add_product(alive, state.data(), gates.data());
      for (std::int64_t i = 0; i < alive; ++i) {
        T *gate = gates.data() + i * all, *c = cell.data() + i * width, *h = state.data() + i * width;
        unary(UnaryOp::sigmoid, gate, gate, 2 * width);
        unary(UnaryOp::tanh, gate + 2 * width, gate + 2 * width, width);
        unary(UnaryOp::sigmoid, gate + 3 * width, gate + 3 * width, width);
        for (std::int64_t j = 0; j < width; ++j) c[j] = gate[width + j] * c[j] + gate[j] * gate[2 * width + j];
        unary(UnaryOp::tanh, c, bent.data(), width);
        for (std::int64_t j = 0; j < width; ++j) h[j] = gate[3 * width + j] * bent.data()[j];
        std::copy_n(h, width, states + row(i) * width);
        std::copy_n(c, width, cells + row(i) * width);
        if (saved == nullptr) continue;
        std::copy_n(gate, all, saved + row(i) * kLstmSaved * width);
        std::copy_n(bent.data(), width, saved + row(i) * kLstmSaved * width + all);
      }
    }
  });
}

template <class T>
void lstm_backward(const LstmPlan<T>& plan, const LstmBackward<T>& data) {
  const std::int64_t width = plan.width, all = 4 * width;
  const StepMatrix<T> matrix(plan.weight, width, Transpose::no, all, width);
  for_each_step_group(plan.bounds, [&](const StepGroup& group) {
    // Of the state and the cell after the step at hand.
    Scratch<T> state = Scratch<T>::zeros(group.count * width), cell = Scratch<T>::zeros(group.count * width);
    Scratch<T> gates(group.count * all), nothing = Scratch<T>::zeros(width);
    for (std::int64_t t = length_of(plan.bounds, group.members[0]) - 1; t >= 0; --t) {
      const std::int64_t alive = living(plan.bounds, group, t);
      for (std::int64_t i = 0; i < alive; ++i) {
        const std::int64_t sequence = group.members[i], row = plan.bounds[static_cast<std::size_t>(sequence)] + t;
        const T* kept = data.saved + row * kLstmSaved * width;
        const T* first = plan.initial_cell == nullptr ? nothing.data() : plan.initial_cell + sequence * width;
        const T* before = t > 0 ? data.cells + (row - 1) * width : first;
        T *of_state = state.data() + i * width, *of_cell = cell.data() + i * width, *gate = gates.data() + i * all;
        for (std::int64_t j = 0; j < width; ++j) {
          const T in = kept[j], forget = kept[width + j], fresh = kept[2 * width + j], out = kept[3 * width + j],
                  bent = kept[all + j];
          const T h = data.gradient_states[row * width + j] + of_state[j];
          const T c = data.gradient_cells[row * width + j] + of_cell[j] + h * out * (1 - bent) * (1 + bent);
          gate[j] = c * fresh * in * (1 - in);
          gate[width + j] = c * before[j] * forget * (1 - forget);
          gate[2 * width + j] = c * in * (1 - fresh) * (1 + fresh);
          gate[3 * width + j] = h * bent * out * (1 - out);
          of_cell[j] = c * forget;
          of_state[j] = 0;
        }
        std::copy_n(gate, all, data.gradient_products + row * all);
      }
      matrix.add_product(alive, gates.data(), state.data());
    }
    for (std::int64_t i = 0; i < group.count; ++i) {
      const std::int64_t at = group.members[i] * width;
      if (data.gradient_initial_state != nullptr) {
        std::copy_n(state.data() + i * width, width, data.gradient_initial_state + at);
      }
      if (data.gradient_initial_cell != nullptr) {
        std::copy_n(cell.data() + i * width, width, data.gradient_initial_cell + at);
      }
    }
  });
}

template void lstm_forward(const LstmPlan<float>&, const float*, const float*, float*, float*, float*);
template void lstm_forward(const LstmPlan<double>&, const double*, const double*, double*, double*, double*);
template void lstm_backward(const LstmPlan<float>&, const LstmBackward<float>&);
template void lstm_backward(const LstmPlan<double>&, const LstmBackward<double>&);

}  // namespace tally::kernels
