#include "tally/recsys/models/neural_ranker.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <mutex>
#include <vector>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/recsys/models/window.h"

namespace tally::recsys {
namespace {

// Histories are scored in groups of a fixed height, the last group filled up with zero rows: OpenBLAS rounds rows
// differently in products of another height, and a user's scores must not depend on the company. Nor on the place in
// the group, which its Haswell and Zen kernels round differently for some shapes: the first of these heights whose rows
// all round alike with the table is used.
constexpr std::int64_t kGroups[] = {16, 12, 24, 8, 6, 4, 1};

/// Scores of a group of rows [group, width] against every row of the table.
void score_group(std::int64_t group, const float* rows, const Tensor& table, float* scores) {
  const std::int64_t items = table.dim(0), width = table.dim(1);
  blas::gemm(blas::Transpose::no, blas::Transpose::yes, group, items, width, 1.0f, rows, width, table.data<float>(),
             width, 0.0f, scores, items);
}

/// Does a row have the same scores at every place of a group?
bool places_are_alike(std::int64_t group, const Tensor& table) {
  const auto items = static_cast<std::size_t>(table.dim(0));
  Tensor rows({group, table.dim(1)});
  fill_normal(RngKey{1}, rows, 0, 1);
  float* values = rows.mutable_data<float>();
  for (std::int64_t row = 1; row < group; ++row) std::copy_n(values, table.dim(1), values + row * table.dim(1));
  std::vector<float> scores(static_cast<std::size_t>(group) * items);
  score_group(group, values, table, scores.data());
  for (std::size_t row = 1; row < static_cast<std::size_t>(group); ++row) {
    if (std::memcmp(scores.data(), scores.data() + row * items, items * sizeof(float)) != 0) return false;
  }
  return true;
}

/// The height of groups that are scored against this table.
std::int64_t group_for(const Tensor& table) {
  return *std::find_if(std::begin(kGroups), std::end(kGroups),
                       [&](std::int64_t group) { return places_are_alike(group, table); });
}

}  // namespace

/// What a model prepares, of all items, and the candidate table: computed once for each state of the weights, not for
/// each block of histories.
class PreparedModel {
 public:
  explicit PreparedModel(const SequenceModel& model) : model_(model) {}

  const SequenceModel& model() const { return model_; }

  struct Values {
    Prepared prepared;
    Tensor table;  ///< contiguous
    std::int64_t group = 1;
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
    values->prepared = model_.prepare(BatchItems::all(model_.num_items()));
    values->table = model_.candidate_table(values->prepared).value().contiguous();
    check<ShapeError>(values->table.rank() == 2 && values->table.dim(0) == model_.num_items(), model_.name(),
                      "needs a candidate table of its ", model_.num_items(), " items; got ", values->table.shape());
    values->group = group_for(values->table);
    values_ = std::move(values);
  }

  const SequenceModel& model_;
  std::mutex mutex_;
  std::vector<Tensor> weights_;
  std::vector<std::uint64_t> versions_;
  std::shared_ptr<const Values> values_;
};

namespace {

/// Writes the last hidden state of a history, [width]. One history at a time: in a product with others its rows would
/// be rounded differently.
void last_state(const SequenceModel& model, const Prepared& prepared, const Sequences& history, float* row) {
  const Var hidden = model.encode(history, prepared, {});
  const std::int64_t width = hidden.dim(1);
  std::memcpy(row, hidden.value().contiguous().data<float>() + (hidden.dim(0) - 1) * width,
              static_cast<std::size_t>(width) * sizeof(float));
}

}  // namespace

NeuralRanker::NeuralRanker(const SequenceModel& model) : model_(std::make_shared<PreparedModel>(model)) {}

std::string NeuralRanker::name() const { return model_->model().name(); }

std::int64_t NeuralRanker::num_items() const { return model_->model().num_items(); }

Tensor NeuralRanker::score(const Sequences& all) const {
  const Paused paused;  // scoring while somebody records elsewhere on this thread must not be recorded
  const SequenceModel& model = model_->model();
  const Sequences histories = cut_to_window(all, model.window(), model.events_before());
  const auto values = model_->values();
  const Tensor& table = values->table;
  const std::int64_t items = table.dim(0), width = table.dim(1), count = histories.count(), group = values->group;
  Tensor scores({count, items});
  float* out = scores.mutable_data<float>();
  // At most one group per core is in work.
  parallel_for(count, group, [&](std::int64_t begin, std::int64_t end) {
    Tensor last = Tensor::zeros({group, width});
    float* rows = last.mutable_data<float>();
    for (std::int64_t i = begin; i < end; ++i) {
      if (histories.offsets.length(i) == 0) continue;
      last_state(model, values->prepared, histories.slice(i, i + 1), rows + (i - begin) * width);
    }
    std::vector<float> block(static_cast<std::size_t>(group * items));
    score_group(group, rows, table, block.data());
    std::memcpy(out + begin * items, block.data(), static_cast<std::size_t>((end - begin) * items) * sizeof(float));
  });
  return scores;
}

Tensor NeuralRanker::item_vectors() const {
  const Paused paused;
  return model_->values()->table;
}

Tensor NeuralRanker::user_vectors(const Sequences& all) const {
  const Paused paused;
  const SequenceModel& model = model_->model();
  const Sequences histories = cut_to_window(all, model.window(), model.events_before());
  const auto values = model_->values();
  Tensor vectors = Tensor::zeros({histories.count(), values->table.dim(1)});
  float* const rows = vectors.mutable_data<float>();
  parallel_for(histories.count(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (histories.offsets.length(i) == 0) continue;
      last_state(model, values->prepared, histories.slice(i, i + 1), rows + i * vectors.dim(1));
    }
  });
  return vectors;
}

Ranker make_ranker(const SequenceModel& model) { return Ranker(NeuralRanker(model)); }

}  // namespace tally::recsys
