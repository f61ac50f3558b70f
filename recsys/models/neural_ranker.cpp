#include "tally/recsys/models/neural_ranker.h"

#include <algorithm>
#include <cstring>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/parallel.h"

namespace tally::recsys {
namespace {

// Histories are encoded and scored in groups of this many, the last group filled up with zero rows: OpenBLAS rounds
// rows differently in products of another height, and a user's scores must not depend on the company.
constexpr std::int64_t kGroup = 16;

Tensor score(const SequenceModel& model, const Sequences& all) {
  const Paused paused;  // scoring while somebody records elsewhere on this thread must not be recorded
  const Sequences histories = cut_to_window(all, model.window());
  const Tensor table = model.item_table().value();
  const std::int64_t items = table.dim(0), width = table.dim(1), count = histories.count();
  Tensor scores({count, items});
  float* out = scores.mutable_data<float>();
  const float* weights = table.data<float>();
  parallel_for(count, kGroup, [&](std::int64_t begin, std::int64_t end) {
    Tensor last = Tensor::zeros({kGroup, width});
    float* rows = last.mutable_data<float>();
    for (std::int64_t i = begin; i < end; ++i) {
      // One history at a time, for the same reason; at most one group per core is in work.
      if (histories.offsets.length(i) == 0) continue;
      const std::span<const std::int32_t> history = histories.sequence(i);
      const Var hidden = model.encode(pack_window(std::span(&history, 1)), {});
      std::memcpy(rows + (i - begin) * width, hidden.value().contiguous().data<float>() + (hidden.dim(0) - 1) * width,
                  static_cast<std::size_t>(width) * sizeof(float));
    }
    std::vector<float> block(static_cast<std::size_t>(kGroup * items));
    blas::gemm(blas::Transpose::no, blas::Transpose::yes, kGroup, items, width, 1.0f, rows, width, weights, width, 0.0f,
               block.data(), items);
    std::memcpy(out + begin * items, block.data(), static_cast<std::size_t>((end - begin) * items) * sizeof(float));
  });
  return scores;
}

}  // namespace

Ranker make_ranker(const SequenceModel& model) {
  return Ranker::from_function(model.name(), model.item_table().dim(0),
                               [&model](const Sequences& histories) { return score(model, histories); });
}

}  // namespace tally::recsys
