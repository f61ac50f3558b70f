#pragma once

#include <cmath>
#include <functional>

#include "tally/nn/attention/linear_memory.h"
#include "tests/nn/dispatcher_definition.h"

namespace tally::testing {

/// Rows of one sequence, at these times, through nn::LinearMemoryKind as it is written, in double loops.
inline Rows linear_memory_by_definition(const nn::LinearMemoryKind& kind, const Tensor& queries, const Tensor& source,
                                        const std::vector<double>& times) {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
  const auto each = [](Rows x, const std::function<double(double)>& f) {
    for (auto& row : x) {
      for (double& value : row) value = f(value);
    }
    return x;
  };
  const auto silu = [&](double x) { return x * sigmoid(x); };
  const nn::LinearMemoryParts& parts = kind.parts;
  const Rows asked = rows_in_double(queries), given = rows_in_double(source);
  const std::size_t length = given.size(), width = given[0].size(), heads = static_cast<std::size_t>(kind.heads),
                    d = width / heads;
  const auto mixed = [&](Rows x, const nn::Parameter& weight) {
    if (parts.taps == 0) return x;
    const Rows taps = rows_in_double(weight.value());
    Rows y(length, std::vector<double>(width));
    for (std::size_t t = 0; t < length; ++t) {
      for (std::size_t c = 0; c < width; ++c) {
        for (std::size_t age = 0; age < taps[c].size() && age <= t; ++age) {
          y[t][c] += taps[c][taps[c].size() - 1 - age] * x[t - age][c];
        }
      }
    }
    return each(y, silu);
  };
  const auto features = [&](const nn::Linear& layer, const Rows& x, const nn::Parameter& taps) {
    Rows y = mixed(linear_rows(layer, x), taps);
    if (parts.silu && parts.taps == 0) y = each(y, silu);
    for (std::size_t t = 0; t < length; ++t) {
      for (std::size_t first = 0; first < width; first += d) {
        if (parts.unit) {
          double squares = 1e-6;
          for (std::size_t i = first; i < first + d; ++i) squares += y[t][i] * y[t][i];
          for (std::size_t i = first; i < first + d; ++i) y[t][i] /= std::sqrt(squares);
        }
        if (!parts.rotary) continue;
        for (std::size_t i = 0; i < d / 2; ++i) {
          const double angle =
              static_cast<double>(t) * std::pow(10000.0, -2 * static_cast<double>(i) / static_cast<double>(d));
          const double a = y[t][first + i], b = y[t][first + d / 2 + i];
          y[t][first + i] = a * std::cos(angle) - b * std::sin(angle);
          y[t][first + d / 2 + i] = b * std::cos(angle) + a * std::sin(angle);
        }
      }
    }
    return y;
  };
  const Rows q = features(kind.query, asked, kind.query_taps), k = features(kind.key, given, kind.key_taps),
             v = mixed(linear_rows(kind.value, given), kind.value_taps);
  // Of channel c of the keys at row t.
  const auto log_decay = [&](std::size_t t, std::size_t c) -> double {
    const std::size_t h = c / d;
    switch (parts.decay) {
      case nn::DecayBy::none:
        return 0;
      case nn::DecayBy::retention:
        return std::log(1 - std::pow(2.0, -5 - static_cast<double>(h)));
      case nn::DecayBy::slopes:
        return -std::pow(2.0, -8 * static_cast<double>(h + 1) / static_cast<double>(heads));
      case nn::DecayBy::row:
        return -std::exp(kind.decay_rate.value().to_doubles()[h]) * softplus(linear_rows(kind.decay, {given[t]})[0][h]);
      case nn::DecayBy::channel: {
        const Rows weight = rows_in_double(kind.decay_inner.weight.value());
        std::vector<double> inner;
        for (const auto& row : weight) {
          double sum = 0;
          for (std::size_t i = 0; i < width; ++i) sum += row[i] * given[t][i];
          inner.push_back(sum);
        }
        return std::log(sigmoid(linear_rows(kind.decay, {inner})[0][c])) / 16;
      }
      case nn::DecayBy::time: {
        const double gap = t == 0 ? 0 : times[t] - times[t - 1];
        const double of_time =
            parts.time_decays ? softplus(kind.time_rate.value().to_doubles()[h]) * std::log1p(gap / parts.time_unit)
                              : 0;
        return -softplus(kind.decay_rate.value().to_doubles()[h]) - of_time;
      }
    }
    return NAN;
  };
  const std::vector<double> weight = kind.norm.weight.value().to_doubles();
  std::vector<Rows> memories(heads, Rows(d, std::vector<double>(d)));
  Rows out;
  for (std::size_t t = 0; t < length; ++t) {
    auto& row = out.emplace_back(width);
    for (std::size_t h = 0; h < heads; ++h) {
      Rows& memory = memories[h];
      const std::size_t first = h * d;
      const double gain = parts.gain ? sigmoid(linear_rows(kind.gain, {given[t]})[0][h]) : 1;
      std::vector<double> held(d);
      for (std::size_t i = 0; i < d; ++i) {
        const double decay = std::exp(log_decay(t, first + i));
        for (std::size_t j = 0; j < d; ++j) {
          memory[i][j] *= decay;
          held[j] += memory[i][j] * k[t][first + i];
        }
      }
      double squares = 0;
      for (std::size_t j = 0; j < d; ++j) {
        const double written = v[t][first + j] - (ops::corrects(parts.rule) ? held[j] : 0);
        for (std::size_t i = 0; i < d; ++i) {
          memory[i][j] += gain * k[t][first + i] * written;
          row[first + j] += memory[i][j] * q[t][first + i] / std::sqrt(static_cast<double>(d));
        }
        squares += row[first + j] * row[first + j];
      }
      const double size = std::sqrt(squares / static_cast<double>(d) + kind.norm.epsilon);
      for (std::size_t j = 0; j < d; ++j) row[first + j] *= weight[j] / size;
    }
    if (parts.gate == nn::OutputGate::none) continue;
    const std::vector<double> gate = linear_rows(kind.gate, {asked[t]})[0];
    for (std::size_t c = 0; c < width; ++c) {
      row[c] *= parts.gate == nn::OutputGate::silu ? silu(gate[c]) : sigmoid(gate[c]);
    }
  }
  return linear_rows(kind.output, out);
}

}  // namespace tally::testing
