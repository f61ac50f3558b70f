#include "tally/recsys/evaluation/ranker.h"

#include "tally/core/error.h"

namespace tally::recsys {

Tensor Ranker::score(const Sequences& histories) const {
  Tensor scores = score_(histories);
  check<DTypeError>(scores.defined() && scores.dtype() == DType::f32, name_, "must score in f32");
  check<ShapeError>(scores.shape() == Shape{histories.count(), num_items_}, name_, "must give scores of shape ",
                    Shape{histories.count(), num_items_}, "; got ", scores.shape());
  return scores.contiguous();
}

}  // namespace tally::recsys
