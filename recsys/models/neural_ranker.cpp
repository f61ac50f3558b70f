#include "tally/recsys/models/neural_ranker.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/parallel.h"

namespace tally::recsys {
namespace {

// Histories are encoded and scored in groups of this many, the last group filled up with zero rows: OpenBLAS rounds
// rows differently in products of another height, and a user's scores must not depend on the company.
constexpr std::int64_t kGroup = 16;

/// What a model prepares, of all items, and the candidate table: computed once for each state of the weights, not for
/// each block of histories.
class PreparedModel {
 public:
  explicit PreparedModel(const SequenceModel& model) : model_(model) {}

  struct Values {
    Prepared prepared;
    Tensor table;  ///< contiguous
  };

  std::shared_ptr<const Values> values() {
    const std::lock_guard lock(mutex_);
    if (values_ == nullptr || !same_weights()) compute();
    return values_;
  }

 private:
  bool same_weights() const {
    const std::vector<Tensor> now = model_.weights();
    for (std::size_t i = 0; i < now.size(); ++i) {
      // Holding the old tensors keeps their memory from being given to new ones.
      if (!now[i].shares_storage_with(weights_[i]) || now[i].version() != versions_[i]) return false;
    }
    return true;
  }

  void compute() {
    weights_ = model_.weights();
    versions_.clear();
    for (const Tensor& weight : weights_) versions_.push_back(weight.version());
    auto values = std::make_shared<Values>();
    values->prepared.items = BatchItems::all(model_.num_items());
    values->prepared.values = model_.prepare(values->prepared.items);
    values->table = model_.candidate_table(values->prepared).value().contiguous();
    check<ShapeError>(values->table.rank() == 2 && values->table.dim(0) == model_.num_items(), model_.name(),
                      "needs a candidate table of its ", model_.num_items(), " items; got ", values->table.shape());
    values_ = std::move(values);
  }

  const SequenceModel& model_;
  std::mutex mutex_;
  std::vector<Tensor> weights_;
  std::vector<std::uint64_t> versions_;
  std::shared_ptr<const Values> values_;
};

Tensor score(const SequenceModel& model, PreparedModel& cache, const Sequences& all) {
  const Paused paused;  // scoring while somebody records elsewhere on this thread must not be recorded
  const Sequences histories = cut_to_window(all, model.window());
  const auto values = cache.values();
  const Tensor& table = values->table;
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
      const Var hidden = model.encode(pack_window(std::span(&history, 1)), values->prepared, {});
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
  const auto cache = std::make_shared<PreparedModel>(model);
  return Ranker::from_function(model.name(), model.num_items(),
                               [&model, cache](const Sequences& histories) { return score(model, *cache, histories); });
}

}  // namespace tally::recsys
