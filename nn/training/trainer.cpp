#include "tally/nn/training/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "tally/core/io/atomic_directory.h"
#include "tally/core/parallel.h"
#include "tally/nn/training/checkpoint.h"
#include "tally/nn/training/training_log.h"

namespace tally::nn {
namespace {

constexpr const char* kName = "trainer";

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TrainerFiles TrainerFiles::in(const std::filesystem::path& directory) {
  return {directory / "last", directory / "best", directory / "log.jsonl"};
}

Trainer::Trainer(Task& task, optim::Optimizer& optimizer, TrainerOptions options, TrainerHooks hooks)
    : task_(task), optimizer_(optimizer), options_(std::move(options)), hooks_(std::move(hooks)) {
  check<ConfigError>(
      options_.epochs >= 1 && options_.evaluate_every >= 1 && options_.patience >= 0 && options_.clip_norm >= 0, kName,
      "needs at least one epoch between and in all, and no negative patience or clipping norm");
  check<ConfigError>(options_.accumulate >= 1 && options_.checkpoint_steps >= 0, kName,
                     "needs at least one step to accumulate and no negative number of steps between checkpoints; got ",
                     options_.accumulate, " and ", options_.checkpoint_steps);
  check<ConfigError>(task.steps() >= 1, kName, "needs a task with at least one step an epoch; got ", task.steps());
  const ParameterList parameters = task.parameters();
  optimizer.check_groups(parameters);
  for (const auto& [path, parameter] : parameters) {
    const optim::ParameterGroup* group = optimizer.group_of(path);
    if (group != nullptr && group->frozen) parameter->freeze();
  }
  check<ConfigError>(std::any_of(parameters.begin(), parameters.end(),
                                 [](const NamedParameter& each) { return !each.parameter->frozen(); }),
                     kName, "needs a parameter that is not frozen; all ", parameters.size(), " are");
}

std::int64_t Trainer::steps_per_epoch() const { return block_count(task_.steps(), options_.accumulate); }

std::optional<TrainerProgress> Trainer::restore() {
  std::optional<TrainerProgress> progress;
  const TrainerFiles& files = options_.files;
  if (!files.last.empty() && (recover_directory(files.last) || is_there(files.last))) {
    progress = load_checkpoint(files.last, task_.state(), optimizer_, task_.identity(), task_.identity_defaults());
  }
  if (!files.log.empty()) {
    drop_lines_after_step(files.log, progress ? progress->step : -1, progress && progress->validation_due);
  }
  return progress;
}

TaskStep Trainer::task_step(const TrainerProgress& progress, std::int64_t index) {
  // Without signs: what a checkpoint says of epochs may be any number.
  const std::uint64_t done = static_cast<std::uint64_t>(progress.epoch) * static_cast<std::uint64_t>(task_.steps()) +
                             static_cast<std::uint64_t>(index);
  StepPlace place{progress.epoch, index, options_.key.fold_in("step").fold_in(done)};
  const auto trace = [](Tape& tape) { tape.trace_non_finite(true); };
  if (options_.trace_non_finite) place.configure = trace;
  TaskStep result = task_.step(place);
  if (!std::isfinite(result.loss)) {
    // The step is a function of its place: run again with every op watched, it names the culprit.
    place.configure = trace;
    task_.step(place);
    fail<ValueError>(kName, "the loss of step ", progress.step, " is ", result.loss);
  }
  check<ValueError>(result.targets >= 1, kName, "needs steps with at least one target; step ", progress.step, " has ",
                    result.targets);
  return result;
}

TaskStep Trainer::gradients_of(const TrainerProgress& progress, std::int64_t parts) {
  TaskStep total = task_step(progress, progress.batch);
  if (parts == 1) return total;
  const auto weigh = [](TaskStep& step) {
    step.loss *= static_cast<double>(step.targets);
    step.gradients.scale(static_cast<double>(step.targets));
  };
  weigh(total);
  for (std::int64_t i = 1; i < parts; ++i) {
    TaskStep next = task_step(progress, progress.batch + i);
    weigh(next);
    total.loss += next.loss;
    total.gradients += std::move(next.gradients);
    total.targets += next.targets;
    total.rows += next.rows;
    total.updates.append(std::move(next.updates));
  }
  const double share = 1 / static_cast<double>(total.targets);
  total.loss *= share;
  total.gradients.scale(share);
  return total;
}

StepReport Trainer::step(TrainerProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const std::int64_t parts = std::min(options_.accumulate, task_.steps() - progress.batch);
  TaskStep result = gradients_of(progress, parts);
  StepReport report;
  result.updates.apply();
  const ParameterList parameters = task_.parameters();
  if (hooks_.on_gradients) hooks_.on_gradients(progress, parameters, result.gradients);
  if (options_.clip_norm > 0) {
    report.gradient_norm = optim::clip_by_global_norm(parameters, result.gradients, options_.clip_norm);
  }
  if (options_.learning_rate) optimizer_.learning_rate = options_.learning_rate(progress.step);
  report.learning_rate = optimizer_.learning_rate;
  check<ValueError>(std::isfinite(report.learning_rate), kName, "the learning rate of step ", progress.step, " is ",
                    report.learning_rate);
  optimizer_.step(parameters, result.gradients);
  report.loss = result.loss;
  report.targets = result.targets;
  report.rows = result.rows;
  report.seconds = seconds_since(start);
  progress.epoch_loss += result.loss * static_cast<double>(result.targets);
  progress.epoch_targets += result.targets;
  ++progress.step;
  progress.batch += parts;
  return report;
}

void Trainer::keep_best(const TrainerProgress& progress) {
  if (!options_.files.best.empty()) save_weights(options_.files.best, task_.state(), task_.identity());
  if (hooks_.on_best) hooks_.on_best(progress);
}

void Trainer::save(const TrainerProgress& progress) {
  if (log_) log_->sync();  // a training that goes on from this checkpoint will not log again what came before
  if (options_.files.last.empty()) return;
  save_checkpoint(options_.files.last, task_.state(), optimizer_, progress, task_.identity());
}

void Trainer::validate(TrainerProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const Validation validation = task_.validate(progress.epoch);
  const double seconds = seconds_since(start), score = validation.score;
  check<ValueError>(std::isfinite(score), kName, "the validation score of epoch ", progress.epoch, " is ", score);
  if (log_) {
    Json line = Json::object({{"event", "validation"}, {"step", progress.step}, {"epoch", progress.epoch}});
    if (validation.record.size() == 0) line.set("score", score);
    for (const auto& [name, value] : validation.record.members()) line.set(name, value);
    line.set("seconds", seconds);
    log_->write_line(line.dump());
  }
  if (hooks_.on_validation) hooks_.on_validation(progress, validation, seconds);
  if (progress.best_score && score <= *progress.best_score) {
    ++progress.validations_since_best;
    return;
  }
  progress.best_score = score;
  progress.best_epoch = progress.epoch;
  progress.validations_since_best = 0;
  keep_best(progress);
}

void Trainer::end_epoch(TrainerProgress& progress, double seconds, std::int64_t timed_rows) {
  const EpochReport report{progress.epoch + 1, progress.epoch_loss / static_cast<double>(progress.epoch_targets),
                           progress.epoch_targets, seconds, timed_rows};
  ++progress.epoch;
  progress.batch = 0;
  progress.epoch_loss = 0;
  progress.epoch_targets = 0;
  Json record = Json::object({{"event", "epoch"},
                              {"step", progress.step},
                              {"epoch", report.epoch},
                              {"loss", report.loss},
                              {"samples", task_.samples()},
                              {"targets", report.targets},
                              {"seconds", report.seconds}});
  if (hooks_.on_epoch) hooks_.on_epoch(progress, report, record);
  if (log_) log_->write_line(record.dump());
  const bool last = progress.epoch >= options_.epochs;
  if (!task_.validates()) {
    progress.best_epoch = progress.epoch;
    if (last) keep_best(progress);
  }
  progress.validation_due = task_.validates() && (last || progress.epoch % options_.evaluate_every == 0);
}

void Trainer::conclude_epoch(TrainerProgress& progress) {
  if (progress.validation_due) validate(progress);
  progress.validation_due = false;
  progress.finished = progress.epoch >= options_.epochs ||
                      (options_.patience > 0 && progress.validations_since_best >= options_.patience);
}

TrainingOutcome Trainer::run(TrainerProgress& progress) {
  const std::int64_t per_epoch = task_.steps();
  for (const std::filesystem::path& path : {options_.files.last, options_.files.best, options_.files.log}) {
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
  }
  if (!options_.files.log.empty()) log_.emplace(options_.files.log);
  double seconds = 0;
  std::int64_t timed_rows = 0;
  while (!progress.finished) {
    bool epoch_ended = progress.validation_due, due = epoch_ended, stop = false;
    if (!epoch_ended) {
      const StepReport report = step(progress);
      seconds += report.seconds;
      timed_rows += report.rows;
      if (hooks_.on_step) hooks_.on_step(progress, report);
      epoch_ended = progress.batch == per_epoch;
      due = epoch_ended || (options_.checkpoint_steps > 0 && progress.step % options_.checkpoint_steps == 0);
      if (epoch_ended) end_epoch(progress, seconds, timed_rows);
    }
    if (epoch_ended) {
      seconds = 0;
      timed_rows = 0;
      try {
        conclude_epoch(progress);
      } catch (const Stopped&) {
        stop = true;
      }
    }
    stop = stop || (!progress.finished && hooks_.stop_requested && hooks_.stop_requested());
    if (due || stop) save(progress);
    if (stop) break;
  }
  log_.reset();
  return progress.finished ? TrainingOutcome::finished : TrainingOutcome::interrupted;
}

}  // namespace tally::nn
