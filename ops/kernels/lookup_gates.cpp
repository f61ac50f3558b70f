#include "tally/ops/kernels/lookup_gates.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tally::kernels {
namespace {

/// Denormals would slow down the products that follow.
template <class T>
double without_denormals(double x) {
  return x < static_cast<double>(std::numeric_limits<T>::min()) ? 0 : x;
}

}  // namespace

template <class T>
ChunkGates<T>::ChunkGates() : between_(static_cast<std::size_t>(kLookupChunk * kLookupChunk), T{1}) {
  before_.fill(1);
  decay_.fill(1);
}

template <class T>
void ChunkGates<T>::load(const T* log_decay, const T* gain, std::int64_t rows) {
  rows_ = rows;
  gain_ = gain;
  decays_ = log_decay != nullptr;
  if (!decays_) return;
  PairSums::PerRow left;  // at the row so far
  double all = 1;
  for (std::int64_t i = 0; i < rows; ++i) {
    const double decay = without_denormals<T>(std::exp(static_cast<double>(log_decay[i])));
    T* row = between_.data() + i * kLookupChunk;
    for (std::int64_t t = 0; t < i; ++t) {
      double& each = left[static_cast<std::size_t>(t)];
      each = without_denormals<T>(each * decay);
      row[t] = static_cast<T>(each);
    }
    left[static_cast<std::size_t>(i)] = 1;
    row[i] = 1;
    all = without_denormals<T>(all * decay);
    before_[static_cast<std::size_t>(i)] = static_cast<T>(all);
    decay_[static_cast<std::size_t>(i)] = decay;
  }
}

template <class T>
void ChunkGates<T>::weigh(std::int64_t place, std::int64_t rows, bool gained, T* x) const {
  if (decays_) {
    const T* left = between_.data() + place * kLookupChunk;
    for (std::int64_t t = 0; t < place; ++t) x[t] *= left[t];
  }
  if (gained && gain_ != nullptr) {
    for (std::int64_t t = 0; t <= place; ++t) x[t] *= gain_[t];
  }
  std::fill(x + place + 1, x + rows, T{0});
}

template <class T>
void ChunkGates<T>::add_pairs(std::int64_t place, const T* products, const T* slopes, double read,
                              PairSums& sums) const {
  // The pair of the lookup's own row has no decay in between. The same numbers are added here and there: what a decay
  // does not lie between cancels to the last bit of a double.
  double all = 0;
  for (std::int64_t t = 0; t < place; ++t) {
    const double pair =
        static_cast<double>(gain(t)) * (static_cast<double>(products[t]) * static_cast<double>(slopes[t]));
    sums.ended[static_cast<std::size_t>(t)] += pair;
    all += pair;
  }
  sums.begun[static_cast<std::size_t>(place)] += all + read;
  sums.before += read;
}

template <class T>
double ChunkGates<T>::slopes(const PairSums& sums, double crossing, bool begins, T* gradient) const {
  const auto rows = static_cast<std::size_t>(rows_);
  double later = 0;
  for (std::size_t t = 0; t < rows; ++t) later += sums.later[t];
  // Nothing that a decay of 0, or the document's beginning, lies between: not even what rounding leaves.
  const bool cut = begins || before_[rows - 1] == T{0};
  const double through = cut ? 0 : crossing - later;
  double within = 0;
  for (std::size_t t = rows; t-- > 0;) {
    within += sums.begun[t] - sums.ended[t];
    later -= sums.later[t];
    const bool nothing = decay_[t] == 0 || (begins && t == 0);
    gradient[t] = nothing ? T{0} : static_cast<T>(through + within + later);
  }
  return through + sums.before;
}

template class ChunkGates<float>;
template class ChunkGates<double>;

}  // namespace tally::kernels
