#include "tally/nn/memory/memory_use.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tally/core/error.h"

namespace tally::nn {
namespace {

std::vector<double> checked(const Tensor& use) {
  std::vector<double> all = use.to_doubles();
  check<ValueError>(std::all_of(all.begin(), all.end(), [](double x) { return x >= 0 && std::isfinite(x); }),
                    "memory use", "needs counts or weights of at least 0");
  return all;
}

}  // namespace

double share_used(const Tensor& use) {
  const std::vector<double> all = checked(use);
  const auto used = std::count_if(all.begin(), all.end(), [](double x) { return x > 0; });
  return all.empty() ? 0 : static_cast<double>(used) / static_cast<double>(all.size());
}

double divergence_from_uniform(const Tensor& use) {
  const std::vector<double> all = checked(use);
  const double total = std::accumulate(all.begin(), all.end(), 0.0);
  if (total == 0) return 0;
  double sum = std::log(static_cast<double>(all.size()));
  for (const double x : all) {
    if (x > 0) sum += x / total * std::log(x / total);
  }
  return std::max(sum, 0.0);
}

}  // namespace tally::nn
