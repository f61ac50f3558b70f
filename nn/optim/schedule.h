#pragma once

#include <cstdint>
#include <functional>

namespace tally::optim {

/// The learning rate of each step of a training, the first being 0: a Schedule, or a function of one's own.
using LearningRate = std::function<double(std::int64_t step)>;

enum class Decay { constant, cosine, step };

/// The learning rate over the steps of a run: a linear warm-up, then a decay.
struct Schedule {
  double peak = 1e-3;
  std::int64_t warmup = 0;  ///< steps from 0 to the peak
  Decay decay = Decay::constant;
  std::int64_t total = 0;   ///< steps until the cosine reaches `floor`
  double floor = 0;         ///< of the cosine, as a share of the peak
  std::int64_t period = 1;  ///< steps between multiplications by `factor`
  double factor = 1;

  /// Learning rate of a step, the first being 0. Throws ValueError for options outside their domain.
  double at(std::int64_t step) const;
  double operator()(std::int64_t step) const { return at(step); }
};

}  // namespace tally::optim
