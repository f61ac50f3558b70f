#include "tally/recsys/baselines/popularity.h"

namespace tally::recsys {

Popularity::Popularity(const Split& split) : scores_({split.data().num_items()}) {
  float* out = scores_.mutable_data<float>();
  for (const std::int64_t count : split.training_counts()) *out++ = static_cast<float>(count);
}

Tensor Popularity::score(const Sequences& histories) const {
  return scores_.reshape({1, num_items()}).expand({histories.count(), num_items()});
}

}  // namespace tally::recsys
