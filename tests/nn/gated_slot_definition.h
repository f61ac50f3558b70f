#pragma once

#include <cmath>

#include "tally/nn/attention/gated_slot.h"
#include "tests/nn/dispatcher_definition.h"

namespace tally::testing {

/// Rows of one sequence through nn::GatedSlotKind as its paper writes the recurrence (arXiv 2409.07146), slot by slot.
inline Rows gated_slot_by_definition(const nn::GatedSlotKind& kind, const Tensor& queries, const Tensor& source) {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto silu = [&](Rows x) {
    for (auto& row : x) {
      for (double& value : row) value *= sigmoid(value);
    }
    return x;
  };
  const Rows asked = rows_in_double(queries), given = rows_in_double(source);
  const Rows q = silu(linear_rows(kind.query, asked)), k = silu(linear_rows(kind.key, given)),
             v = silu(linear_rows(kind.value, given)), gates = linear_rows(kind.decay, given);
  const auto heads = static_cast<std::size_t>(kind.heads);
  const std::size_t d = q[0].size() / heads, slots = gates[0].size() / heads;
  std::vector<Rows> slot_keys(heads, Rows(slots, std::vector<double>(d))), slot_values = slot_keys;
  Rows out;
  for (std::size_t t = 0; t < given.size(); ++t) {
    auto& row = out.emplace_back(q[0].size());
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<double> weights(slots);
      double total = 0;
      for (std::size_t m = 0; m < slots; ++m) {
        const double alpha = std::pow(sigmoid(gates[t][h * slots + m]), 1 / kind.damping);
        double score = 0;
        for (std::size_t i = 0; i < d; ++i) {
          double &of_key = slot_keys[h][m][i], &of_value = slot_values[h][m][i];
          of_key = alpha * of_key + (1 - alpha) * k[t][h * d + i];
          of_value = alpha * of_value + (1 - alpha) * v[t][h * d + i];
          score += of_key * q[t][h * d + i];
        }
        total += weights[m] = std::exp(score);
      }
      for (std::size_t m = 0; m < slots; ++m) {
        for (std::size_t i = 0; i < d; ++i) row[h * d + i] += weights[m] / total * slot_values[h][m][i];
      }
    }
    double squares = 0;
    for (double& x : row) {
      x *= sigmoid(x);
      squares += x * x;
    }
    const std::vector<double> weight = kind.norm.weight.value().to_doubles();
    const double size = std::sqrt(squares / static_cast<double>(row.size()) + kind.norm.epsilon);
    for (std::size_t i = 0; i < row.size(); ++i) row[i] *= weight[i] / size;
  }
  return linear_rows(kind.output, out);
}

}  // namespace tally::testing
