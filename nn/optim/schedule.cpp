#include "tally/nn/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tally/core/error.h"

namespace tally::optim {

double Schedule::at(std::int64_t step) const {
  check<ValueError>(peak > 0 && warmup >= 0, "schedule", "needs a peak above 0 and a warm-up of at least 0; got ", peak,
                    " and ", warmup);
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const std::int64_t since = step - warmup;
  switch (decay) {
    case Decay::constant:
      return peak;
    case Decay::cosine: {
      check<ValueError>(total > warmup, "schedule", "needs more steps than the warm-up's ", warmup, "; got ", total);
      const double share = std::min(1.0, static_cast<double>(since) / static_cast<double>(total - warmup));
      return peak * (floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * share)));
    }
    case Decay::step:
      check<ValueError>(period >= 1, "schedule", "needs a period of at least 1; got ", period);
      return peak * std::pow(factor, static_cast<double>(since / period));
  }
  return peak;
}

}  // namespace tally::optim
