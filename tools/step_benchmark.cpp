#include "tools/step_benchmark.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>

#include "tally/autograd/tape.h"
#include "tally/core/blas.h"
#include "tally/core/io/file.h"
#include "tally/core/io/safetensors.h"
#include "tally/core/machine.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/core/report/table.h"
#include "tally/core/simd.h"
#include "tally/core/version.h"
#include "tally/recsys/run/run_data.h"
#include "tally/recsys/run/run_training.h"
#include "tally/recsys/run/trained_model.h"
#include "tally/recsys/training/recommender_task.h"
#include "tools/timing.h"

namespace tally::tools {
namespace {

using namespace recsys;
using Clock = std::chrono::steady_clock;

/// The threads of machines for which a speed-up is counted.
constexpr int kCountedThreads[] = {2, 4, 8, 16, 32, 64};

/// Everything that a step of a config's training needs.
class StepWork {
 public:
  StepWork(const RunConfig& config, const std::optional<DrawnHistories>& drawn) : key_(run_key(config)) {
    std::vector<std::span<const std::int32_t>> histories;
    std::vector<std::span<const double>> times;
    check<ConfigError>(!drawn || (drawn->items >= 1 && drawn->length >= 0), "--items, --length",
                       "need at least 1 and 0; got ", drawn ? drawn->items : 0, " and ", drawn ? drawn->length : 0);
    if (!drawn) {
      data_ = load_run_data(config.data);
      for (std::int64_t u = 0; u < data_.interactions->num_users(); ++u) {
        histories.push_back(data_.split->training(u));
        if (!data_.interactions->times.empty()) times.push_back(data_.split->training_times(u));
      }
    }
    const std::int64_t items = drawn ? drawn->items : data_.interactions->num_items();
    model_ = make_sequence_model(config.model, items, key_.fold_in("model"));
    if (drawn) histories = draw(config.train.train_batch_size, *drawn);
    optimizer_ = config.train.learner.row().make(config.train.learner.options, config.train.learning_rate);
    batches_ = std::make_unique<TrainingBatches>(histories,
                                                 batch_options(config.train, model_->window(), model_->events_before()),
                                                 key_.fold_in("order"), std::move(times));
    task_ = std::make_unique<RecommenderTask>(*model_, *batches_, make_loss(config.train, {histories, items}));
    check<ConfigError>(batches_->users() > 0, "bench step", "needs a user with two training events");
  }

  /// Every call is of the same batch.
  nn::TaskStep gradients(const std::function<void(Tape&)>& configure = {}) {
    return task_->step({0, 0, key_.fold_in("training"), configure});
  }
  void update(nn::TaskStep& step) {
    step.updates.apply();
    optimizer_->step(task_->parameters(), step.gradients);
  }
  void step() {
    nn::TaskStep step = gradients();
    update(step);
  }
  /// write_step() says what.
  void write(const std::filesystem::path& path) {
    const nn::TaskStep step = gradients();
    std::map<std::string, Tensor> tensors{{"loss", Tensor::scalar(step.loss, DType::f64)}};
    for (const auto& [name, parameter] : task_->parameters()) {
      tensors.emplace("parameter." + name, parameter->value());
      const Var leaf = parameter->var();
      if (step.gradients.contains(leaf)) tensors.emplace("gradient." + name, step.gradients[leaf]);
    }
    std::vector<std::int32_t> items, targets;
    std::vector<std::int64_t> offsets{0};
    const TrainingBatch batch = batches_->batch(0, 0);
    for (const TrainingShard& shard : batch.shards) {
      const auto inputs = shard.inputs.items.span<std::int32_t>(), nexts = shard.targets.span<std::int32_t>();
      items.insert(items.end(), inputs.begin(), inputs.end());
      targets.insert(targets.end(), nexts.begin(), nexts.end());
      for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
        offsets.push_back(offsets.back() + shard.inputs.offsets.length(s));
      }
    }
    tensors.emplace("items", Tensor::from(items, {batch.rows}));
    tensors.emplace("targets", Tensor::from(targets, {batch.rows}));
    tensors.emplace("offsets", Tensor::from(offsets, {static_cast<std::int64_t>(offsets.size())}));
    save_safetensors(path, tensors);
  }
  std::string describe() const {
    std::int64_t parameters = 0;
    for (const auto& [path, parameter] : task_->parameters()) parameters += parameter->value().numel();
    const TrainingBatch batch = batches_->batch(0, 0);
    return fmt::format("{} with {} parameters; a batch of {} rows in {} shards", model_->name(), parameters, batch.rows,
                       batch.shards.size());
  }

 private:
  std::vector<std::span<const std::int32_t>> draw(std::int64_t users, const DrawnHistories& drawn) {
    const std::int64_t length = drawn.length > 0 ? drawn.length : model_->window() + 1;
    const RngKey key = key_.fold_in("histories");
    std::vector<std::span<const std::int32_t>> histories;
    constexpr std::int64_t kMostEvents = std::int64_t{1} << 32;
    check<ValueError>(length <= kMostEvents / std::max<std::int64_t>(users, 1), "bench step", "needs at most ",
                      kMostEvents, " events in all; got ", users, " users of ", length);
    drawn_.resize(static_cast<std::size_t>(users * length));
    for (std::int64_t u = 0; u < users; ++u) {
      std::int32_t* events = drawn_.data() + u * length;
      for (std::int64_t i = 0; i < length; ++i) {
        events[i] =
            static_cast<std::int32_t>(uniform_below(key, static_cast<std::uint64_t>(u), static_cast<std::uint64_t>(i),
                                                    static_cast<std::uint64_t>(drawn.items)));
      }
      histories.emplace_back(events, static_cast<std::size_t>(length));
    }
    return histories;
  }

  RngKey key_;
  RunData data_;
  std::vector<std::int32_t> drawn_;
  std::unique_ptr<SequenceModel> model_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::unique_ptr<TrainingBatches> batches_;
  std::unique_ptr<RecommenderTask> task_;
};

/// Times the ops of one tape: what passes between two of its events is the later one's.
class OpWatch final : public TapeWatch {
 public:
  explicit OpWatch(std::map<std::string, OpFigures>& ops) : ops_(ops) { lap(); }

  void recorded(std::string_view op, std::span<const Var* const> inputs, std::span<const Tensor> outputs) override {
    OpFigures& figures = ops_[std::string(op)];
    ++figures.calls;
    const auto [seconds, operations] = lap();
    figures.forward_seconds += seconds;
    figures.forward_operations += operations;
    for (const Var* input : inputs) figures.bytes += input->defined() ? static_cast<double>(input->value().bytes()) : 0;
    for (const Tensor& output : outputs) figures.bytes += output.defined() ? static_cast<double>(output.bytes()) : 0;
  }
  void backward_begins() override { lap(); }
  void differentiated(std::string_view op) override {
    OpFigures& figures = ops_[std::string(op)];
    const auto [seconds, operations] = lap();
    figures.backward_seconds += seconds;
    figures.backward_operations += operations;
  }

 private:
  std::pair<double, double> lap() {
    const auto now = Clock::now();
    const std::uint64_t operations = blas::operations();
    const std::pair passed(std::chrono::duration<double>(now - time_).count(),
                           static_cast<double>(operations - operations_));
    time_ = now;
    operations_ = operations;
    return passed;
  }

  std::map<std::string, OpFigures>& ops_;
  Clock::time_point time_;
  std::uint64_t operations_ = 0;
};

/// The ops of the fastest of some steps, on one thread.
void profile(StepWork& work, int rounds, StepFigures& figures) {
  for (int round = 0; round < rounds; ++round) {
    std::map<std::string, OpFigures> ops;
    std::vector<std::unique_ptr<OpWatch>> watches;
    nn::TaskStep step;
    const double seconds = seconds_of([&] {
      step = work.gradients([&](Tape& tape) {
        watches.push_back(std::make_unique<OpWatch>(ops));
        tape.watch(watches.back().get());
      });
    });
    const double update = seconds_of([&] { work.update(step); });
    if (round == 0 || seconds < figures.profiled_seconds) {
      figures.profiled_seconds = seconds;
      figures.ops = std::move(ops);
    }
    figures.optimizer_seconds = round == 0 ? update : std::min(update, figures.optimizer_seconds);
  }
}

/// What more threads would gain, from the fastest time of each block in some steps.
StepBlocks count_blocks(StepWork& work, int rounds) {
  StepBlocks result;
  BlockTimes fastest;
  const double first = seconds_of([&] { work.step(); });
  result.serial = first - fastest.seconds();
  for (int round = 1; round < rounds; ++round) {
    const BlockTimes times;
    const double seconds = seconds_of([&] { work.step(); });
    result.serial = std::min(result.serial, seconds - times.seconds());
    fastest.keep_fastest(times);
  }
  for (const std::vector<double>& call : fastest.calls()) {
    ++result.calls;
    result.blocks += static_cast<std::int64_t>(call.size());
    result.longest = std::max(result.longest, *std::max_element(call.begin(), call.end()));
  }
  for (const int threads : kCountedThreads) {
    result.speedup[threads] = (result.serial + fastest.seconds()) / (result.serial + fastest.seconds_on(threads));
  }
  return result;
}

/// What malloc holds, in use or free.
std::int64_t bytes_from_system() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<std::int64_t>(info.arena + info.hblkhd);
}

std::string percent_of(double part, double whole) {
  return whole > 0 && part > 0 ? fmt::format("{:.1f} %", 100 * part / whole) : kNoFigure;
}

}  // namespace

Json StepFigures::to_json() const {
  Json op_rows = Json::array();
  for (const auto& [name, op] : ops) {
    op_rows.push_back(Json::object({{"op", name},
                                    {"calls", op.calls},
                                    {"forward_seconds", op.forward_seconds},
                                    {"backward_seconds", op.backward_seconds},
                                    {"forward_operations", op.forward_operations},
                                    {"backward_operations", op.backward_operations},
                                    {"bytes", op.bytes}}));
  }
  Json speedups = Json::object();
  for (const auto& [count, speedup] : blocks.speedup) speedups.set(std::to_string(count), speedup);
  return Json::object({{"step", what},
                       {"version", version()},
                       {"revision", revision()},
                       {"simd", simd_target()},
                       {"blas", blas::description()},
                       {"threads", threads},
                       {"seconds", seconds},
                       {"fastest_seconds", fastest},
                       {"operations", operations},
                       {"sgemm_operations_per_second", sgemm_rate},
                       {"sgemm_share", sgemm_share()},
                       {"rows", rows},
                       {"peak_bytes", peak_bytes},
                       {"allocations", allocations},
                       {"system_bytes", system_bytes},
                       {"optimizer_seconds", optimizer_seconds},
                       {"profiled_seconds", profiled_seconds},
                       {"ops", std::move(op_rows)},
                       {"parallel_calls", blocks.calls},
                       {"parallel_blocks", blocks.blocks},
                       {"longest_block_seconds", blocks.longest},
                       {"serial_seconds", blocks.serial},
                       {"expected_speedup", std::move(speedups)}});
}

StepFigures measure_step(const RunConfig& config, const std::optional<DrawnHistories>& drawn,
                         const StepOptions& options) {
  check<ConfigError>(options.rounds >= 1, "--rounds", "needs at least 1; got ", options.rounds);
  flush_denormals(config.train.flush_denormals);
  set_num_threads(options.threads);
  StepWork work(config, drawn);
  StepFigures figures;
  figures.what = work.describe();
  figures.threads = options.threads;
  for (int warm = 0; warm < 2; ++warm) work.step();
  const MemoryStats before = memory_stats();
  const std::uint64_t operations = blas::operations();
  {
    const MemoryScope memory;
    nn::TaskStep step = work.gradients();
    work.update(step);
    figures.rows = step.rows;
    figures.peak_bytes = memory.peak();
  }
  figures.operations = static_cast<double>(blas::operations() - operations);
  const MemoryStats after = memory_stats();
  figures.allocations = after.allocations - before.allocations;
  std::vector<double> seconds;
  for (int round = 0; round < options.rounds; ++round) {
    figures.sgemm_rate = std::max(figures.sgemm_rate, measure_sgemm_rate());
    const std::int64_t taken = bytes_from_system();
    seconds.push_back(seconds_of([&] { work.step(); }));
    figures.system_bytes += bytes_from_system() - taken;
  }
  figures.seconds = median(seconds);
  figures.fastest = *std::min_element(seconds.begin(), seconds.end());
  set_num_threads(1);
  profile(work, options.rounds, figures);
  figures.blocks = count_blocks(work, options.rounds);
  return figures;
}

void write_step(const RunConfig& config, const std::optional<DrawnHistories>& drawn,
                const std::filesystem::path& path) {
  StepWork(config, drawn).write(path);
}

std::string step_table(const StepFigures& f) {
  std::vector<std::pair<std::string, OpFigures>> ops(f.ops.begin(), f.ops.end());
  const auto seconds_of_op = [](const OpFigures& op) { return op.forward_seconds + op.backward_seconds; };
  std::sort(ops.begin(), ops.end(),
            [&](const auto& a, const auto& b) { return seconds_of_op(a.second) > seconds_of_op(b.second); });
  const double one_thread_rate = f.sgemm_rate / f.threads, all = f.profiled_seconds + f.optimizer_seconds;
  Table table({{"op", false},
               {"calls"},
               {"forward ms"},
               {"backward ms"},
               {"of the step"},
               {"GFLOP"},
               {"GFLOP/s"},
               {"of sgemm"},
               {"MB"}});
  double rest = f.profiled_seconds;
  for (const auto& [name, op] : ops) {
    const double seconds = seconds_of_op(op), operations = op.forward_operations + op.backward_operations;
    rest -= seconds;
    table.add_row({name, std::to_string(op.calls), format_fixed(1e3 * op.forward_seconds, 2),
                   format_fixed(1e3 * op.backward_seconds, 2), percent_of(seconds, all),
                   operations > 0 ? format_fixed(1e-9 * operations, 2) : kNoFigure,
                   operations > 0 ? format_fixed(1e-9 * operations / seconds, 1) : kNoFigure,
                   percent_of(operations / seconds, one_thread_rate), format_fixed(1e-6 * op.bytes, 1)});
  }
  const auto add_part = [&](const char* name, double seconds) {
    table.add_row({name, kNoFigure, kNoFigure, format_fixed(1e3 * seconds, 2), percent_of(seconds, all), kNoFigure,
                   kNoFigure, kNoFigure, kNoFigure});
  };
  add_part("(optimizer)", f.optimizer_seconds);
  add_part("(batch, tape, sums of gradients)", rest);
  std::string text = fmt::format(
      "{}\n{} thread{}: {:.1f} ms a step (median; best {:.1f}), {:.2f} GFLOP of products, {:.1f} GFLOP/s, {:.0f} % of "
      "sgemm ({:.1f} GFLOP/s)\ntensors: peak {}, {} allocations; {} bytes taken from the system in all timed steps\n\n",
      f.what, f.threads, f.threads == 1 ? "" : "s", 1e3 * f.seconds, 1e3 * f.fastest, 1e-9 * f.operations,
      1e-9 * f.operations / f.seconds, 100 * f.sgemm_share(), 1e-9 * f.sgemm_rate,
      format_bytes(static_cast<double>(f.peak_bytes)), f.allocations, f.system_bytes);
  text += table.to_markdown();
  text += fmt::format("\nOn one thread. Blocks: {} in {} parallel regions, the longest {:.1f} ms; serial {:.1f} ms.",
                      f.blocks.blocks, f.blocks.calls, 1e3 * f.blocks.longest, 1e3 * f.blocks.serial);
  for (const auto& [threads, speedup] : f.blocks.speedup) {
    text += fmt::format("{} {} threads {:.1f} times", threads == kCountedThreads[0] ? " Expected speed-up:" : ",",
                        threads, speedup);
  }
  return text + "\n";
}

std::string compare_steps(const std::string& before_path, const std::string& after_path) {
  const Json before = read_json(before_path), after = read_json(after_path);
  const auto number = [](const Json& json, const std::string& path, const char* name) {
    const Json* value = json.find(name);
    check<IoError>(value != nullptr, path, "is no result of tally bench step: it has no '", name, "'");
    return value->as_double(path);
  };
  Table table({{"what", false}, {"before"}, {"after"}, {"before / after"}});
  const auto add = [&](const std::string& name, double a, double b, double unit, int decimals) {
    table.add_row({name, format_fixed(a * unit, decimals), format_fixed(b * unit, decimals),
                   b > 0 ? format_fixed(a / b, 2) : kNoFigure});
  };
  const auto add_number = [&](const char* name, const char* label, double unit, int decimals) {
    add(label, number(before, before_path, name), number(after, after_path, name), unit, decimals);
  };
  add_number("seconds", "step, ms", 1e3, 1);
  add_number("sgemm_share", "of sgemm, %", 100, 1);
  add_number("peak_bytes", "peak of tensors, MB", 1e-6, 1);
  add_number("optimizer_seconds", "optimizer, ms", 1e3, 2);
  add_number("serial_seconds", "serial, ms", 1e3, 2);
  const auto seconds_by_op = [&](const Json& json, const std::string& path) {
    const Json* ops = json.find("ops");
    check<IoError>(ops != nullptr, path, "is no result of tally bench step: it has no 'ops'");
    std::map<std::string, double> seconds;
    for (const Json& op : ops->elements(path)) {
      seconds[op.at("op").as_string()] = number(op, path, "forward_seconds") + number(op, path, "backward_seconds");
    }
    return seconds;
  };
  std::map<std::string, double> old_ops = seconds_by_op(before, before_path),
                                new_ops = seconds_by_op(after, after_path);
  for (const auto& [name, seconds] : new_ops) old_ops.try_emplace(name, 0);
  for (const auto& [name, seconds] : old_ops) add(name + ", ms", seconds, new_ops[name], 1e3, 2);
  return table.to_markdown();
}

}  // namespace tally::tools
