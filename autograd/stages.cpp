#include "tally/autograd/stages.h"

#include <cstring>
#include <map>
#include <mutex>

#include "tally/core/parallel.h"

namespace tally {
namespace {

/// Adds up results that arrive in any order, in the order of their index.
class OrderedFold {
 public:
  /// Gradients of `dense` leaves are summed as dense tensors, in place: the union of shards' rows, which soon are most
  /// rows of a batch's table, is not merged anew for every shard.
  explicit OrderedFold(std::span<const Var> dense) : dense_(dense) {}

  void deposit(std::int64_t index, double loss, Gradients gradients) {
    std::unique_lock lock(mutex_);
    waiting_.emplace(index, StageResult{loss, std::move(gradients)});
    if (folding_) return;  // whoever folds now will find it
    folding_ = true;
    while (!waiting_.empty() && waiting_.begin()->first == next_) {
      StageResult result = std::move(waiting_.begin()->second);
      waiting_.erase(waiting_.begin());
      ++next_;
      lock.unlock();
      total_.loss += result.loss;
      total_.gradients += std::move(result.gradients);
      for (const Var& leaf : dense_) total_.gradients.make_dense(leaf.leaf_id());
      lock.lock();
    }
    folding_ = false;
  }

  StageResult take() { return std::move(total_); }

 private:
  std::span<const Var> dense_;
  std::mutex mutex_;
  std::map<std::int64_t, StageResult> waiting_;
  std::int64_t next_ = 0;
  bool folding_ = false;
  StageResult total_;
};

/// Lays the k-th rows of all shards end to end.
Tensor concatenate(std::span<const ShardOutput> shards, std::size_t k) {
  Shape shape = shards[0].rows[k].shape();
  std::int64_t rows = 0;
  for (const ShardOutput& shard : shards) rows += shard.rows[k].dim(0);
  shape.set(0, rows);
  Tensor all(shape, shards[0].rows[k].dtype());
  std::byte* out = all.mutable_raw_data();
  for (const ShardOutput& shard : shards) {
    const Tensor part = shard.rows[k].value().contiguous();
    if (part.bytes() > 0) std::memcpy(out, part.raw_data(), part.bytes());
    out += part.bytes();
  }
  return all;
}

/// Throws ShapeError or DTypeError unless every shard hands on the same tensors, but for the number of rows.
void check_rows(std::span<const ShardOutput> shards) {
  for (std::size_t s = 0; s < shards.size(); ++s) {
    const std::vector<Var>&rows = shards[s].rows, &first = shards[0].rows;
    check<ShapeError>(rows.size() == first.size(), "stages",
                      "needs as many tensors of rows from every shard; shard 0 has ", first.size(), " and shard ", s,
                      " has ", rows.size(), " tensors of rows");
    for (std::size_t k = 0; k < rows.size(); ++k) {
      check<ShapeError>(rows[k].defined() && rows[k].rank() >= 1 && first[k].rank() >= 1 &&
                            rows[k].shape().without(0) == first[k].shape().without(0),
                        "stages", "needs rows of one shape but for their number; rows ", k, " of shard 0 are ",
                        first[k].shape(), " and of shard ", s, " ", rows[k].shape());
      check<DTypeError>(rows[k].dtype() == first[k].dtype(), "stages", "needs rows of one type; rows ", k,
                        " of shard 0 are ", first[k].dtype(), " and of shard ", s, " ", rows[k].dtype());
    }
  }
}

/// The forward half of a shard, kept until the batch stage has its gradient.
struct OpenShard {
  Tape tape;
  ShardOutput output;
};

class Step {
 public:
  Step(const Stages& stages, const std::function<void(Tape&)>& configure) : stages_(stages), configure_(configure) {}

  StageResult run() {
    Tape prepare_tape;
    if (stages_.prepare) {
      if (configure_) configure_(prepare_tape);
      const Recording on(prepare_tape);
      prepared_ = stages_.prepare();
    }
    // The same leaf in every shard, so that the shards' gradients add up.
    for (const Var& value : prepared_) {
      leaves_.push_back(is_floating(value.dtype()) ? Var::leaf(value.value()) : Var(value.value()));
    }
    StageResult result = stages_.finish ? run_with_batch_stage() : run_shards_alone();
    if (!prepared_.empty()) finish_prepare(prepare_tape, result.gradients);
    return result;
  }

 private:
  /// Calls body(shard) for all: narrow shards side by side, wide ones alone. A thread that waits for a loop of its own
  /// may take a shard meanwhile, and what it records then is not the shard's.
  template <class Body>
  void for_each_shard(Body&& body) {
    std::vector<std::int64_t> narrow, wide;
    for (std::int64_t s = 0; s < stages_.shards; ++s) (stages_.wide && stages_.wide(s) ? wide : narrow).push_back(s);
    for (const std::int64_t shard : wide) body(shard);
    parallel_for(static_cast<std::int64_t>(narrow.size()), 1, [&](std::int64_t i, std::int64_t) {
      const Paused paused;
      body(narrow[static_cast<std::size_t>(i)]);
    });
  }

  ShardOutput encode(std::int64_t shard, Tape& tape) {
    if (configure_) configure_(tape);
    const Recording on(tape);
    return stages_.encode(shard, leaves_);
  }

  StageResult run_shards_alone() {
    OrderedFold fold(leaves_);
    for_each_shard([&](std::int64_t shard) {
      Tape tape;
      const ShardOutput output = encode(shard, tape);
      const double loss = output.loss.defined() ? output.loss.item() : 0;
      fold.deposit(shard, loss, output.loss.tracked() ? tape.backward(output.loss) : Gradients());
    });
    return fold.take();
  }

  StageResult run_with_batch_stage() {
    std::vector<OpenShard> open(static_cast<std::size_t>(stages_.shards));
    for_each_shard([&](std::int64_t shard) {
      OpenShard& place = open[static_cast<std::size_t>(shard)];
      place.output = encode(shard, place.tape);
    });
    std::vector<ShardOutput> outputs;
    for (const OpenShard& shard : open) outputs.push_back(shard.output);
    check_rows(outputs);
    Tape batch_tape;
    if (configure_) configure_(batch_tape);
    std::vector<Var> rows;
    for (std::size_t k = 0; !outputs.empty() && k < outputs[0].rows.size(); ++k) {
      const Tensor all = concatenate(outputs, k);
      rows.push_back(is_floating(all.dtype()) ? batch_tape.input(all) : Var(all));
    }
    Var loss;
    {
      const Recording on(batch_tape);
      loss = stages_.finish(rows, leaves_);
    }
    const double batch_loss = loss.item();
    Gradients batch = loss.tracked() ? batch_tape.backward(loss) : Gradients();
    std::vector<Tensor> cotangents;  // of the rows; undefined where no gradient came
    for (const Var& var : rows) {
      const bool reached = var.is_leaf() && batch.contains(var);
      cotangents.push_back(reached ? to_dense(batch.take(var.leaf_id())) : Tensor());
    }
    const std::vector<std::vector<std::int64_t>> first = first_rows(outputs, rows.size());
    OrderedFold fold(leaves_);
    for_each_shard([&](std::int64_t shard) {
      OpenShard& place = open[static_cast<std::size_t>(shard)];
      std::vector<Var> ends;
      std::vector<Tensor> seeds;
      double shard_loss = 0;
      if (place.output.loss.defined()) {
        shard_loss = place.output.loss.item();
        ends.push_back(place.output.loss);
        seeds.push_back(Tensor::full(place.output.loss.shape(), 1, place.output.loss.dtype()));
      }
      for (std::size_t k = 0; k < cotangents.size(); ++k) {
        if (!cotangents[k].defined()) continue;
        const std::int64_t begin = first[k][static_cast<std::size_t>(shard)];
        ends.push_back(place.output.rows[k]);
        seeds.push_back(cotangents[k].slice(0, begin, begin + place.output.rows[k].dim(0)));
      }
      fold.deposit(shard, shard_loss, place.tape.backward(ends, seeds));
      place.output = {};
    });
    StageResult result = fold.take();
    result.loss += batch_loss;
    result.gradients += std::move(batch);
    return result;
  }

  static std::vector<std::vector<std::int64_t>> first_rows(std::span<const ShardOutput> outputs, std::size_t count) {
    std::vector<std::vector<std::int64_t>> first(count);
    for (std::size_t k = 0; k < count; ++k) {
      std::int64_t row = 0;
      for (const ShardOutput& output : outputs) {
        first[k].push_back(row);
        row += output.rows[k].dim(0);
      }
    }
    return first;
  }

  void finish_prepare(Tape& tape, Gradients& gradients) {
    std::vector<Var> ends;
    std::vector<Tensor> seeds;
    for (std::size_t i = 0; i < prepared_.size(); ++i) {
      if (!leaves_[i].is_leaf() || !gradients.contains(leaves_[i])) continue;
      ends.push_back(prepared_[i]);
      seeds.push_back(to_dense(gradients.take(leaves_[i].leaf_id())));
    }
    gradients += tape.backward(ends, seeds);
  }

  const Stages& stages_;
  const std::function<void(Tape&)>& configure_;
  std::vector<Var> prepared_;
  std::vector<Var> leaves_;
};

}  // namespace

StageResult run_stages(const Stages& stages, const std::function<void(Tape&)>& configure) {
  check<ValueError>(stages.encode != nullptr, "stages", "needs an encode stage");
  check<AutogradError>(Tape::current() == nullptr, "stages",
                       "run while a tape records, which would take their gradients for constants; say "
                       "`const Paused paused;` where constants are meant");
  return Step(stages, configure).run();
}

}  // namespace tally
