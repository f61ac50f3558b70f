#include "tally/recsys/training/trainer.h"

#include <chrono>
#include <cmath>

namespace tally::recsys {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Json TrainerProgress::to_json() const {
  return Json::object({{"epoch", epoch},
                       {"batch", batch},
                       {"step", step},
                       {"epoch_loss", epoch_loss},
                       {"epoch_targets", epoch_targets},
                       {"best_score", best_score},
                       {"best_epoch", best_epoch},
                       {"validations_since_best", validations_since_best},
                       {"finished", finished}});
}

TrainerProgress TrainerProgress::from_json(const Json& json) {
  TrainerProgress progress;
  progress.epoch = json.at("epoch").as_integer();
  progress.batch = json.at("batch").as_integer();
  progress.step = json.at("step").as_integer();
  progress.epoch_loss = json.at("epoch_loss").as_double();
  progress.epoch_targets = json.at("epoch_targets").as_integer();
  progress.best_score = json.at("best_score").as_double();
  progress.best_epoch = json.at("best_epoch").as_integer();
  progress.validations_since_best = json.at("validations_since_best").as_integer();
  progress.finished = json.at("finished").as_bool();
  return progress;
}

Trainer::Trainer(SequenceModel& model, optim::Optimizer& optimizer, const TrainingBatches& batches,
                 const TrainerOptions& options, TrainerHooks hooks)
    : model_(model), optimizer_(optimizer), batches_(batches), options_(options), hooks_(std::move(hooks)) {
  check<ConfigError>(
      options.epochs >= 1 && options.evaluate_every >= 1 && options.patience >= 0 && options.clip_norm >= 0, "trainer",
      "needs at least one epoch between and in all, and no negative patience or clipping norm");
  check<ConfigError>(batches.users() > 0, "trainer", "needs at least one user with two training items; got none");
}

StepReport Trainer::step(TrainerProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  const TrainingBatch batch = batches_.batch(progress.epoch, progress.batch);
  const RngKey key = options_.key.fold_in("step").fold_in(static_cast<std::uint64_t>(progress.step));
  std::function<void(Tape&)> configure;
  if (options_.trace_non_finite) configure = [](Tape& tape) { tape.trace_non_finite(true); };
  StageResult result = training_step(model_, batch, key, options_.loss, configure);
  if (!std::isfinite(result.loss)) {
    // The step is a function of its key: run again with every op watched, it names the culprit.
    training_step(model_, batch, key, options_.loss, [](Tape& tape) { tape.trace_non_finite(true); });
    fail<ValueError>("trainer", "the loss of step ", progress.step, " is ", result.loss);
  }
  StepReport report;
  const nn::ParameterList parameters = model_.parameters();
  if (options_.clip_norm > 0) {
    report.gradient_norm = optim::clip_by_global_norm(parameters, result.gradients, options_.clip_norm);
  }
  optimizer_.learning_rate = report.learning_rate = options_.schedule.at(progress.step);
  optimizer_.step(parameters, result.gradients);
  report.loss = result.loss;
  report.targets = batch.targets;
  report.rows = batch.rows;
  report.seconds = seconds_since(start);
  progress.epoch_loss += result.loss * static_cast<double>(batch.targets);
  progress.epoch_targets += batch.targets;
  ++progress.step;
  ++progress.batch;
  return report;
}

void Trainer::end_epoch(TrainerProgress& progress, double seconds, std::int64_t timed_rows) {
  const EpochReport report{progress.epoch + 1, progress.epoch_loss / static_cast<double>(progress.epoch_targets),
                           progress.epoch_targets, seconds, timed_rows};
  ++progress.epoch;
  progress.batch = 0;
  progress.epoch_loss = 0;
  progress.epoch_targets = 0;
  if (hooks_.on_epoch) hooks_.on_epoch(progress, report);
  const bool last = progress.epoch >= options_.epochs;
  if (!hooks_.validate) {
    progress.best_epoch = progress.epoch;
    if (last && hooks_.on_best) hooks_.on_best(progress);
  } else if (last || progress.epoch % options_.evaluate_every == 0) {
    const double score = hooks_.validate(progress.epoch);
    check<ValueError>(std::isfinite(score), "trainer", "the validation score of epoch ", progress.epoch, " is ", score);
    if (score > progress.best_score) {
      progress.best_score = score;
      progress.best_epoch = progress.epoch;
      progress.validations_since_best = 0;
      if (hooks_.on_best) hooks_.on_best(progress);
    } else {
      ++progress.validations_since_best;
    }
  }
  progress.finished = last || (options_.patience > 0 && progress.validations_since_best >= options_.patience);
}

TrainingOutcome Trainer::run(TrainerProgress& progress) {
  const std::int64_t per_epoch = batches_.batches_per_epoch();
  double seconds = 0;
  std::int64_t timed_rows = 0;
  while (!progress.finished) {
    const StepReport report = step(progress);
    seconds += report.seconds;
    timed_rows += report.rows;
    if (hooks_.on_step) hooks_.on_step(progress, report);
    bool save = options_.checkpoint_steps > 0 && progress.step % options_.checkpoint_steps == 0;
    if (progress.batch == per_epoch) {
      end_epoch(progress, seconds, timed_rows);
      seconds = 0;
      timed_rows = 0;
      save = true;
    }
    const bool stop = !progress.finished && hooks_.stop_requested && hooks_.stop_requested();
    if ((save || stop) && hooks_.save) hooks_.save(progress);
    if (stop) return TrainingOutcome::interrupted;
  }
  return TrainingOutcome::finished;
}

}  // namespace tally::recsys
