// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/gru.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tally/ops/kernels/gru.h"
#include "tally/ops/kernels/simd_math-inl.h"
#include "tally/ops/kernels/step_groups.h"
#include "tally/ops/kernels/vectors-inl.h"

#ifndef TALLY_OPS_KERNELS_GRU_ONCE
#define TALLY_OPS_KERNELS_GRU_ONCE
namespace tally::kernels {
namespace {

/// A step of one sequence: its row, and where the state before it lies.
struct GruRow {
  std::int64_t row;
  std::int64_t member;  ///< within the group
  const float* previous;
};

/// The rows of step `step` of a group's living sequences; returns their number.
std::int64_t rows_of_step(const GruPlan<float>& plan, const StepGroup& group, std::int64_t step, const float* output,
                          const float* zeros, GruRow* rows) {
  std::int64_t alive = 0;
  for (; alive < group.count; ++alive) {
    const std::int64_t sequence = group.members[alive];
    const std::int64_t row = plan.bounds[static_cast<std::size_t>(sequence)] + step;
    if (row >= plan.bounds[static_cast<std::size_t>(sequence) + 1]) break;
    const float* initial = plan.initial == nullptr ? zeros : plan.initial + sequence * plan.width;
    rows[alive] = {row, alive, step == 0 ? initial : output + (row - 1) * plan.width};
  }
  return alive;
}

}  // namespace
}  // namespace tally::kernels
#endif  // TALLY_OPS_KERNELS_GRU_ONCE

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

using F = hn::ScalableTag<float>;

// Rows of a tile, at most: with three (forward) or two (backward) vectors of columns its sums fill the registers that
// the latency of a multiply-add needs, and no more. One tile of weights serves them all.
constexpr int kTileRows = 4;

// Terms that a product's sums take one after the other. The sums of so many are then added up: rounding errors grow
// with this and with the number of such sums, not with their product, which is 768 for states of 256.
constexpr std::int64_t kTerms = 64;

/// Sums over all terms of a tile, as vectors in memory: registers hold those of the terms at hand.
template <int kVectors>
struct TileSums {
  HWY_ALIGN float lanes[kVectors * (HWY_MAX_BYTES / sizeof(float))];

  HWY_INLINE void set(int i, hn::Vec<F> v) { hn::Store(v, F(), lanes + i * hn::Lanes(F())); }
  HWY_INLINE hn::Vec<F> get(int i) const { return hn::Load(F(), lanes + i * hn::Lanes(F())); }
  HWY_INLINE void add(int i, hn::Vec<F> v) { set(i, hn::Add(get(i), v)); }
};

std::int64_t vector_lanes() { return static_cast<std::int64_t>(hn::Lanes(F())); }

/// Weights for the forward step: for each vector of columns j, for each k, W[j, k] of the gates r, z and n.
void pack_forward_f32(const GruPlan<float>& plan, const float* bias, float* packed, float* packed_bias) {
  const F d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t width = plan.width;
  for (std::int64_t j = 0; j < width; j += lanes) {
    for (std::int64_t gate = 0; gate < 3; ++gate) {
      for (std::int64_t lane = 0; lane < lanes; ++lane) {
        const bool inside = j + lane < width;
        const float* row = plan.weight + (gate * width + j + lane) * width;
        for (std::int64_t k = 0; k < width; ++k) packed[(k * 3 + gate) * lanes + lane] = inside ? row[k] : 0;
        packed_bias[gate * lanes + lane] = inside && bias != nullptr ? bias[gate * width + j + lane] : 0;
      }
    }
    packed += 3 * width * lanes;
    packed_bias += 3 * lanes;
  }
}

/// Weights for the backward step: for each pair of vectors of columns j, for each row k, W[k, j].
void pack_backward_f32(const GruPlan<float>& plan, float* packed) {
  const std::int64_t width = plan.width, columns = 2 * vector_lanes();
  for (std::int64_t j = 0; j < width; j += columns) {
    const std::int64_t count = std::min(columns, width - j);
    for (std::int64_t k = 0; k < 3 * width; ++k) {
      std::fill(std::copy_n(plan.weight + k * width + j, count, packed), packed + columns, 0.0f);
      packed += columns;
    }
  }
}

/// Rows' results of a forward step, from the sums of their hidden products.
struct ForwardStep {
  std::int64_t width;
  const float* products;
  float* output;
  float* saved;

  template <class V>
  HWY_INLINE void finish(const GruRow& at, std::int64_t j, std::int64_t count, V r, V z, V hidden) const {
    const F d;
    const float* x = products + at.row * 3 * width + j;
    const V reset = simd::sigmoid(d, hn::Add(load_lanes(d, x, count), r));
    const V update = simd::sigmoid(d, hn::Add(load_lanes(d, x + width, count), z));
    const V fresh = simd::tanh(d, hn::MulAdd(reset, hidden, load_lanes(d, x + 2 * width, count)));
    const V state = hn::MulAdd(update, hn::Sub(load_lanes(d, at.previous + j, count), fresh), fresh);
    store_lanes(state, d, output + at.row * width + j, count);
    if (saved == nullptr) return;
    float* kept = saved + at.row * kGruSaved * width + j;
    store_lanes(reset, d, kept, count);
    store_lanes(update, d, kept + width, count);
    store_lanes(fresh, d, kept + 2 * width, count);
    store_lanes(hidden, d, kept + 3 * width, count);
  }

  /// One vector of columns for `kRows` rows. The sums are named, as vectors of some targets have no arrays.
  template <int kRows>
  HWY_INLINE void tile(const GruRow* rows, std::int64_t j, std::int64_t count, const float* packed,
                       const float* bias) const {
    const F d;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    const auto bias_r = hn::LoadU(d, bias), bias_z = hn::LoadU(d, bias + lanes),
               bias_n = hn::LoadU(d, bias + 2 * lanes);
    TileSums<3 * kRows> sums;
    for (int i = 0; i < kRows; ++i) sums.set(3 * i, bias_r), sums.set(3 * i + 1, bias_z), sums.set(3 * i + 2, bias_n);
    const float* h0 = rows[0].previous;
    const float* h1 = rows[kRows > 1 ? 1 : 0].previous;
    const float* h2 = rows[kRows > 2 ? 2 : 0].previous;
    const float* h3 = rows[kRows > 3 ? 3 : 0].previous;
    for (std::int64_t begin = 0; begin < width; begin += kTerms) {
      auto r0 = hn::Zero(d), r1 = r0, r2 = r0, r3 = r0, z0 = r0, z1 = r0, z2 = r0, z3 = r0, n0 = r0, n1 = r0, n2 = r0,
           n3 = r0;
      for (std::int64_t k = begin, end = std::min(width, begin + kTerms); k < end; ++k) {
        const auto wr = hn::LoadU(d, packed), wz = hn::LoadU(d, packed + lanes), wn = hn::LoadU(d, packed + 2 * lanes);
        packed += 3 * lanes;
        const auto x0 = hn::Set(d, h0[k]);
        r0 = hn::MulAdd(x0, wr, r0), z0 = hn::MulAdd(x0, wz, z0), n0 = hn::MulAdd(x0, wn, n0);
        if constexpr (kRows > 1) {
          const auto x1 = hn::Set(d, h1[k]);
          r1 = hn::MulAdd(x1, wr, r1), z1 = hn::MulAdd(x1, wz, z1), n1 = hn::MulAdd(x1, wn, n1);
        }
        if constexpr (kRows > 2) {
          const auto x2 = hn::Set(d, h2[k]);
          r2 = hn::MulAdd(x2, wr, r2), z2 = hn::MulAdd(x2, wz, z2), n2 = hn::MulAdd(x2, wn, n2);
        }
        if constexpr (kRows > 3) {
          const auto x3 = hn::Set(d, h3[k]);
          r3 = hn::MulAdd(x3, wr, r3), z3 = hn::MulAdd(x3, wz, z3), n3 = hn::MulAdd(x3, wn, n3);
        }
      }
      sums.add(0, r0), sums.add(1, z0), sums.add(2, n0);
      if constexpr (kRows > 1) sums.add(3, r1), sums.add(4, z1), sums.add(5, n1);
      if constexpr (kRows > 2) sums.add(6, r2), sums.add(7, z2), sums.add(8, n2);
      if constexpr (kRows > 3) sums.add(9, r3), sums.add(10, z3), sums.add(11, n3);
    }
    for (int i = 0; i < kRows; ++i) {
      finish(rows[i], j, count, sums.get(3 * i), sums.get(3 * i + 1), sums.get(3 * i + 2));
    }
  }
};

/// Calls body.tile<rows>(first row, arguments...) for groups of at most kTileRows rows.
template <class Step, class... Arguments>
HWY_INLINE void for_each_tile(const Step& step, const GruRow* rows, std::int64_t count, Arguments... arguments) {
  for (; count >= kTileRows; count -= kTileRows, rows += kTileRows) step.template tile<4>(rows, arguments...);
  if (count == 3) step.template tile<3>(rows, arguments...);
  if (count == 2) step.template tile<2>(rows, arguments...);
  if (count == 1) step.template tile<1>(rows, arguments...);
}

void forward_group_f32(const GruPlan<float>& plan, const StepGroup& group, const float* packed,
                       const float* packed_bias, const float* products, float* output, float* saved) {
  const std::int64_t lanes = vector_lanes();
  const std::vector<float> zeros(static_cast<std::size_t>(plan.width), 0.0f);
  GruRow rows[kStepGroup];
  const ForwardStep step{plan.width, products, output, saved};
  const std::int64_t longest = length_of(plan.bounds, group.members[0]);
  for (std::int64_t t = 0; t < longest; ++t) {
    const std::int64_t alive = rows_of_step(plan, group, t, output, zeros.data(), rows);
    for (std::int64_t j = 0; j < plan.width; j += lanes) {
      for_each_tile(step, rows, alive, j, std::min(lanes, plan.width - j), packed + 3 * j * plan.width,
                    packed_bias + 3 * j);
    }
  }
}

/// The gradient of a step's previous state, from the gates' gradients.
struct BackwardStep {
  std::int64_t width;
  const GruBackward<float>& data;
  float* carry;  ///< [group, width]

  /// carry += [gates r, z, hidden part of n] W for two vectors of columns.
  template <int kRows>
  HWY_INLINE void tile(const GruRow* rows, std::int64_t j, std::int64_t first, std::int64_t second,
                       const float* packed) const {
    const F d;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    TileSums<2 * kRows> sums;
    for (int i = 0; i < kRows; ++i) {
      const float* ahead = carry + rows[i].member * width + j;
      sums.set(2 * i, load_lanes(d, ahead, first));
      sums.set(2 * i + 1, second > 0 ? load_lanes(d, ahead + lanes, second) : hn::Zero(d));
    }
    const auto add_products = [&](const float* base, std::int64_t stride, std::int64_t depth) HWY_ATTR {
      const float* g0 = base + rows[0].row * stride;
      const float* g1 = base + rows[kRows > 1 ? 1 : 0].row * stride;
      const float* g2 = base + rows[kRows > 2 ? 2 : 0].row * stride;
      const float* g3 = base + rows[kRows > 3 ? 3 : 0].row * stride;
      for (std::int64_t begin = 0; begin < depth; begin += kTerms) {
        auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        for (std::int64_t k = begin, end = std::min(depth, begin + kTerms); k < end; ++k) {
          const auto wa = hn::LoadU(d, packed), wb = hn::LoadU(d, packed + lanes);
          packed += 2 * lanes;
          const auto x0 = hn::Set(d, g0[k]);
          a0 = hn::MulAdd(x0, wa, a0), b0 = hn::MulAdd(x0, wb, b0);
          if constexpr (kRows > 1) {
            const auto x1 = hn::Set(d, g1[k]);
            a1 = hn::MulAdd(x1, wa, a1), b1 = hn::MulAdd(x1, wb, b1);
          }
          if constexpr (kRows > 2) {
            const auto x2 = hn::Set(d, g2[k]);
            a2 = hn::MulAdd(x2, wa, a2), b2 = hn::MulAdd(x2, wb, b2);
          }
          if constexpr (kRows > 3) {
            const auto x3 = hn::Set(d, g3[k]);
            a3 = hn::MulAdd(x3, wa, a3), b3 = hn::MulAdd(x3, wb, b3);
          }
        }
        sums.add(0, a0), sums.add(1, b0);
        if constexpr (kRows > 1) sums.add(2, a1), sums.add(3, b1);
        if constexpr (kRows > 2) sums.add(4, a2), sums.add(5, b2);
        if constexpr (kRows > 3) sums.add(6, a3), sums.add(7, b3);
      }
    };
    add_products(data.gradient_products, 3 * width, 2 * width);
    add_products(data.gradient_hidden, width, width);
    for (int i = 0; i < kRows; ++i) {
      float* to = carry + rows[i].member * width + j;
      store_lanes(sums.get(2 * i), d, to, first);
      if (second > 0) store_lanes(sums.get(2 * i + 1), d, to + lanes, second);
    }
  }

  /// Gradients of a row's gates from that of its state, and what of it the previous state gets directly.
  HWY_INLINE void gates(const GruRow& at) const {
    const F d;
    const auto one = hn::Set(d, 1.0f);
    const float* kept = data.saved + at.row * kGruSaved * width;
    float* products = data.gradient_products + at.row * 3 * width;
    float* ahead = carry + at.member * width;
    for_each_vector(d, width, [&](std::int64_t j, std::int64_t count) HWY_ATTR {
      const auto state =
          hn::Add(load_lanes(d, data.gradient_output + at.row * width + j, count), load_lanes(d, ahead + j, count));
      const auto reset = load_lanes(d, kept + j, count), update = load_lanes(d, kept + width + j, count);
      const auto fresh = load_lanes(d, kept + 2 * width + j, count);
      const auto hidden = load_lanes(d, kept + 3 * width + j, count);
      const auto previous = load_lanes(d, at.previous + j, count);
      const auto gn = hn::Mul(hn::Mul(state, hn::Sub(one, update)), hn::NegMulAdd(fresh, fresh, one));
      const auto gz = hn::Mul(hn::Mul(state, hn::Sub(previous, fresh)), hn::Mul(update, hn::Sub(one, update)));
      const auto gr = hn::Mul(hn::Mul(gn, hidden), hn::Mul(reset, hn::Sub(one, reset)));
      store_lanes(gr, d, products + j, count);
      store_lanes(gz, d, products + width + j, count);
      store_lanes(gn, d, products + 2 * width + j, count);
      store_lanes(hn::Mul(gn, reset), d, data.gradient_hidden + at.row * width + j, count);
      store_lanes(hn::Mul(state, update), d, ahead + j, count);
    });
  }
};

void backward_group_f32(const GruPlan<float>& plan, const StepGroup& group, const float* packed,
                        const GruBackward<float>& data, float* carry) {
  const std::int64_t lanes = vector_lanes();
  const std::int64_t width = plan.width;
  const std::vector<float> zeros(static_cast<std::size_t>(width), 0.0f);
  GruRow rows[kStepGroup];
  const BackwardStep step{width, data, carry};
  for (std::int64_t t = length_of(plan.bounds, group.members[0]) - 1; t >= 0; --t) {
    const std::int64_t alive = rows_of_step(plan, group, t, data.output, zeros.data(), rows);
    for (std::int64_t i = 0; i < alive; ++i) step.gates(rows[i]);
    if (t == 0 && data.gradient_initial == nullptr) return;
    for (std::int64_t j = 0; j < width; j += 2 * lanes) {
      for_each_tile(step, rows, alive, j, std::min(lanes, width - j), std::min(lanes, width - j - lanes),
                    packed + 3 * j * width);
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(vector_lanes);
HWY_EXPORT(pack_forward_f32);
HWY_EXPORT(pack_backward_f32);
HWY_EXPORT(forward_group_f32);
HWY_EXPORT(backward_group_f32);

/// Room for the columns rounded up to two vectors of the target in use.
std::int64_t padded_columns(std::int64_t width) {
  const std::int64_t columns = 2 * HWY_DYNAMIC_DISPATCH(vector_lanes)();
  return (width + columns - 1) / columns * columns;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

void gru_forward(const GruPlan<float>& plan, const float* products, const float* bias, float* output, float* saved) {
  const std::int64_t columns = padded_columns(plan.width);
  std::vector<float> packed(static_cast<std::size_t>(3 * plan.width * columns));
  std::vector<float> packed_bias(static_cast<std::size_t>(3 * columns));
  HWY_DYNAMIC_DISPATCH(pack_forward_f32)(plan, bias, packed.data(), packed_bias.data());
  for_each_step_group(plan.bounds, [&](const StepGroup& group) {
    HWY_DYNAMIC_DISPATCH(forward_group_f32)(plan, group, packed.data(), packed_bias.data(), products, output, saved);
  });
}

void gru_backward(const GruPlan<float>& plan, const GruBackward<float>& data) {
  std::vector<float> packed(static_cast<std::size_t>(3 * plan.width * padded_columns(plan.width)));
  HWY_DYNAMIC_DISPATCH(pack_backward_f32)(plan, packed.data());
  for_each_step_group(plan.bounds, [&](const StepGroup& group) {
    std::vector<float> carry(static_cast<std::size_t>(group.count * plan.width), 0.0f);
    HWY_DYNAMIC_DISPATCH(backward_group_f32)(plan, group, packed.data(), data, carry.data());
    if (data.gradient_initial == nullptr) return;
    for (std::int64_t i = 0; i < group.count; ++i) {
      std::copy_n(carry.data() + i * plan.width, plan.width, data.gradient_initial + group.members[i] * plan.width);
    }
  });
}

void gru_forward(const GruPlan<double>& plan, const double* products, const double* bias, double* output,
                 double* saved) {
  const std::int64_t width = plan.width;
  const std::vector<double> zeros(static_cast<std::size_t>(width), 0.0);
  for_each_step_group(plan.bounds, [&](const StepGroup& group) {
    std::vector<double> hidden(static_cast<std::size_t>(3 * width));
    for (std::int64_t i = 0; i < group.count; ++i) {
      const std::int64_t sequence = group.members[i];
      const double* previous = plan.initial == nullptr ? zeros.data() : plan.initial + sequence * width;
      for (std::int64_t row = plan.bounds[static_cast<std::size_t>(sequence)];
           row < plan.bounds[static_cast<std::size_t>(sequence) + 1]; ++row) {
        for (std::int64_t g = 0; g < 3 * width; ++g) {
          double sum = bias == nullptr ? 0 : bias[g];
          for (std::int64_t k = 0; k < width; ++k) sum += plan.weight[g * width + k] * previous[k];
          hidden[static_cast<std::size_t>(g)] = sum;
        }
        const double* x = products + row * 3 * width;
        const double* h = hidden.data();
        double* state = output + row * width;
        for (std::int64_t j = 0; j < width; ++j) {
          const double reset = sigmoid(x[j] + h[j]), update = sigmoid(x[width + j] + h[width + j]);
          const double fresh = std::tanh(x[2 * width + j] + reset * h[2 * width + j]);
          state[j] = fresh + update * (previous[j] - fresh);
          if (saved == nullptr) continue;
          double* kept = saved + row * kGruSaved * width + j;
          kept[0] = reset, kept[width] = update, kept[2 * width] = fresh, kept[3 * width] = h[2 * width + j];
        }
        previous = state;
      }
    }
  });
}

void gru_backward(const GruPlan<double>& plan, const GruBackward<double>& data) {
  const std::int64_t width = plan.width;
  const std::vector<double> zeros(static_cast<std::size_t>(width), 0.0);
  for_each_step_group(plan.bounds, [&](const StepGroup& group) {
    std::vector<double> carry(static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < group.count; ++i) {
      const std::int64_t sequence = group.members[i], begin = plan.bounds[static_cast<std::size_t>(sequence)];
      std::fill(carry.begin(), carry.end(), 0.0);
      for (std::int64_t row = plan.bounds[static_cast<std::size_t>(sequence) + 1] - 1; row >= begin; --row) {
        const double* initial = plan.initial == nullptr ? zeros.data() : plan.initial + sequence * width;
        const double* previous = row == begin ? initial : data.output + (row - 1) * width;
        double* products = data.gradient_products + row * 3 * width;
        double* hidden = data.gradient_hidden + row * width;
        for (std::int64_t j = 0; j < width; ++j) {
          const double* kept = data.saved + row * kGruSaved * width + j;
          const double reset = kept[0], update = kept[width], fresh = kept[2 * width];
          const double state = data.gradient_output[row * width + j] + carry[static_cast<std::size_t>(j)];
          const double gn = state * (1 - update) * (1 - fresh * fresh);
          products[j] = gn * kept[3 * width] * reset * (1 - reset);
          products[width + j] = state * (previous[j] - fresh) * update * (1 - update);
          products[2 * width + j] = gn;
          hidden[j] = gn * reset;
          carry[static_cast<std::size_t>(j)] = state * update;
        }
        for (std::int64_t k = 0; k < 3 * width; ++k) {
          const double gradient = k < 2 * width ? products[k] : hidden[k - 2 * width];
          const double* weights = plan.weight + k * width;
          for (std::int64_t j = 0; j < width; ++j) carry[static_cast<std::size_t>(j)] += gradient * weights[j];
        }
      }
      if (data.gradient_initial != nullptr) {
        std::copy(carry.begin(), carry.end(), data.gradient_initial + sequence * width);
      }
    }
  });
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
