#include "tally/recsys/run/train_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "tally/core/blas.h"
#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/directory_lock.h"
#include "tally/core/io/file.h"
#include "tally/core/machine.h"
#include "tally/core/memory.h"
#include "tally/core/nested_error.h"
#include "tally/core/parallel.h"
#include "tally/nn/training/checkpoint.h"
#include "tally/nn/training/trainer.h"
#include "tally/recsys/baselines/markov.h"
#include "tally/recsys/baselines/popularity.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/report/report.h"
#include "tally/recsys/run/data_report.h"
#include "tally/recsys/run/run_evaluation.h"
#include "tally/recsys/run/run_recommendations.h"
#include "tally/recsys/run/run_training.h"
#include "tally/recsys/run/run_users.h"
#include "tally/recsys/run/trained_model.h"
#include "tally/recsys/training/recommender_task.h"
#include "tally/recsys/training/start_from.h"

namespace tally::recsys {
namespace {

constexpr std::int64_t kRecommended = 10;
/// Spent on the machine's rate after each epoch.
constexpr double kSgemmSeconds = 0.03;

/// One run, new or resumed. The constructor reads and checks everything that can be wrong with the config and the data,
/// and writes nothing.
class TrainingRun {
 public:
  TrainingRun(const RunConfig& config, RunData data, Console& console, StopRequested stop_requested)
      : config_(config),
        console_(console),
        stop_requested_(std::move(stop_requested)),
        data_(std::move(data)),
        identity_(checkpoint_identity(config, data_.hash, data_.interactions->items)),
        model_(make_sequence_model(config.model, data_.interactions->num_items(), run_key(config).fold_in("model"))),
        optimizer_(config.train.learner.row().make(config.train.learner.options, config.train.learning_rate)),
        batches_(histories(), batch_options(config.train, model_->window(), model_->events_before()),
                 run_key(config).fold_in("order"), times()),
        loss_(make_loss(config.train, {histories(), data_.interactions->num_items()})),
        evaluation_(evaluation_options(config, stop_requested_)),
        validation_targets_(evaluated_targets(config, *data_.split, Part::validation)),
        test_targets_(evaluated_targets(config, *data_.split, Part::test)),
        shown_user_(find_shown_user()),
        task_(*model_, batches_, loss_, validation_function(),
              training_identity(config, data_.hash, data_.interactions->items), training_identity_defaults(config)) {
    check<IoError>(batches_.users() > 0, config.data.path,
                   "has no user with two training events (four in all): nothing could be trained on");
    set_groups();
    if (!evaluation_.sampled) return;
    check_candidates(*data_.split, Part::validation, validation_targets_, *evaluation_.sampled);
    check_candidates(*data_.split, Part::test, test_targets_, *evaluation_.sampled);
  }

  /// In a directory that is there, or in a new one when none is named.
  RunOutcome start(const RunDirectory& directory) {
    start_from();  // before anything is written: it may fail
    directory_ = directory.path.empty() ? create_run_directory(config_) : directory;
    lock_ = DirectoryLock::inside(directory_.path);
    write_file_atomically(directory_.config(), recorded_config(config_).dump(2) + '\n');
    nn::Trainer trainer = make_trainer();
    return run(trainer, {});
  }

  /// `lock` is that of the directory.
  RunOutcome resume(const RunDirectory& directory, DirectoryLock lock) {
    const bool begun = is_there(directory.training()) || is_there(directory.last_checkpoint());
    check<IoError>(begun || !is_there(directory.best_weights()), directory.path.string(),
                   "has weights that were not trained there (convert-weights) and nothing to go on from; "
                   "train.start_from begins another run with them");
    directory_ = directory;
    lock_ = std::move(lock);
    nn::Trainer trainer = make_trainer();
    return run(trainer, restore(trainer));
  }

 private:
  RunOutcome run(nn::Trainer& trainer, nn::TrainerProgress progress) {
    // A kill may have come before the first checkpoint, even before this.
    if (!is_there(directory_.environment())) {
      write_file_atomically(directory_.environment(), environment().dump(2) + '\n');
    }
    if (const std::string warning = blas::fallback_warning(); !warning.empty()) console_.line(warning);
    RunOutcome outcome{directory_, nn::TrainingOutcome::interrupted, {}};
    try {
      outcome.training = train(trainer, progress);
      if (outcome.training == nn::TrainingOutcome::finished) outcome.test = finish(progress);
    } catch (const Stopped&) {
      outcome.training = nn::TrainingOutcome::interrupted;
    }
    if (outcome.training == nn::TrainingOutcome::interrupted) {
      console_.line(fmt::format("stopped after step {}; go on with: tally train --resume {}", progress.step,
                                directory_.path.string()));
    }
    return outcome;
  }

  /// Throws Stopped out of the evaluation of the baselines.
  nn::TrainingOutcome train(nn::Trainer& trainer, nn::TrainerProgress& progress) {
    describe_data();
    baselines_ = {evaluate(Popularity(*data_.split), *data_.split, Part::test, test_targets_, evaluation_),
                  evaluate(Markov(*data_.split), *data_.split, Part::test, test_targets_, evaluation_)};
    for (const Evaluation& baseline : baselines_) console_.block(baseline.to_text());
    describe_training();
    operations_before_ = blas::operations();
    return trainer.run(progress);
  }

  void set_groups() {
    optimizer_->groups = config_.train.parameter_groups;
    try {
      optimizer_->check_groups(model_->parameters());
    } catch (const ValueError& error) {
      fail<ConfigError>("train.parameter_groups", said_by(error));
    }
  }

  /// Weights of the run that the config names.
  void start_from() {
    const std::string& run = config_.train.start_from;
    if (run.empty()) return;
    const TrainedModel other = open_model({run}, config_.tables);
    flush_denormals(config_.train.flush_denormals);  // the other run's own setting is of no account here
    const StartedFrom taken = recsys::start_from(*model_, data_.interactions->items, *other.model, other.items.ids,
                                                 run_key(config_).fold_in("model"));
    console_.line(fmt::format("starts from the weights of {}: {} of {} tensors ({})", run, taken.tensors.size(),
                              model_->state().size(), fmt::join(taken.tensors, ", ")));
    console_.line(fmt::format("items: {} known to that run, {} new; {} of its items are not in the data",
                              taken.known_items, taken.new_items, taken.left_items));
  }

  std::vector<std::span<const std::int32_t>> histories() const {
    std::vector<std::span<const std::int32_t>> all;
    for (std::int64_t u = 0; u < data_.interactions->num_users(); ++u) all.push_back(data_.split->training(u));
    return all;
  }

  /// When they were; none when the data have no times.
  std::vector<std::span<const double>> times() const {
    std::vector<std::span<const double>> all;
    if (data_.interactions->times.empty()) return all;
    for (std::int64_t u = 0; u < data_.interactions->num_users(); ++u) all.push_back(data_.split->training_times(u));
    return all;
  }

  void describe_data() {
    const DataReport report = describe(config_.data, data_);
    console_.block(report.to_text());
    write_catalogue(directory_.items(), catalogue_of(*data_.split, data_.titles));
    write_users(directory_.users(), *data_.interactions,
                {.histories = config_.keep_histories, .times = model_->reads_times()});
    // Its presence says that the two above are whole.
    write_file_atomically(directory_.data(), report.to_json().dump(2) + '\n');
  }

  void describe_training() {
    std::int64_t count = 0;
    for (const auto& [path, parameter] : model_->parameters()) count += parameter->value().numel();
    console_.line(fmt::format("model: {} with {} parameters; {} threads", model_->name(), count, num_threads()));
    console_.line(fmt::format("training: {} users, {} {} samples and {} target positions an epoch, {} batches",
                              batches_.users(), batches_.samples_per_epoch(), name_of(batches_.options().samples),
                              batches_.targets_per_epoch(), batches_.batches_per_epoch()));
    console_.line("loss: " + loss_->description());
    Json baselines = Json::array();
    for (const Evaluation& baseline : baselines_) baselines.push_back(to_json(baseline));
    write_file_atomically(directory_.training(), Json::object({{"model", model_->name()},
                                                               {"parameters", count},
                                                               {"users", batches_.users()},
                                                               {"targets_per_epoch", batches_.targets_per_epoch()},
                                                               {"batches_per_epoch", batches_.batches_per_epoch()},
                                                               {"baselines", std::move(baselines)}})
                                                         .dump(2) +
                                                     '\n');
  }

  nn::TrainerProgress restore(nn::Trainer& trainer) {
    const std::optional<nn::TrainerProgress> progress = trainer.restore();
    if (!progress) {
      console_.line("no checkpoint yet: starting from the beginning");
      start_from();
      return {};
    }
    console_.line(fmt::format("resuming after step {} (epoch {})", progress->step, progress->epoch + 1));
    return *progress;
  }

  std::int64_t steps_per_epoch() const {
    return block_count(batches_.batches_per_epoch(), config_.train.accumulate_batches);
  }
  /// At most the largest number there is: epochs may be as many as one likes.
  std::int64_t total_steps() const {
    return std::min(config_.train.epochs, std::numeric_limits<std::int64_t>::max() / steps_per_epoch()) *
           steps_per_epoch();
  }

  nn::Trainer make_trainer() {
    const TrainConfig& config = config_.train;
    nn::TrainerOptions options;
    options.epochs = config.epochs;
    options.evaluate_every = config.eval_step;
    options.patience = config.stopping_step;
    options.checkpoint_steps = config.checkpoint_steps;
    options.clip_norm = config.clip_grad_norm;
    options.accumulate = config.accumulate_batches;
    options.trace_non_finite = config.detect_anomaly;
    options.key = run_key(config_).fold_in("training");
    options.learning_rate =
        config.decay.row().make(config.decay.options, config.learning_rate, config.warmup_steps, total_steps());
    options.files = {directory_.last_checkpoint(), directory_.best_weights(), directory_.metrics()};
    nn::TrainerHooks hooks;
    hooks.stop_requested = stop_requested_;
    hooks.on_step = [this](const nn::TrainerProgress& now, const nn::StepReport& step) {
      console_.progress(
          fmt::format("epoch {}", now.epoch + 1), now.batch, batches_.batches_per_epoch(),
          fmt::format("loss {:.4f}  {:.0f} tokens/s", step.loss, static_cast<double>(step.rows) / step.seconds));
    };
    hooks.on_epoch = [this](const nn::TrainerProgress&, const nn::EpochReport& epoch, Json& record) {
      epoch_ = epoch;
      epoch_operations_ = static_cast<double>(blas::operations() - operations_before_);
      // Beside each epoch: other programs of a machine slow both down.
      sgemm_rate_ = measure_sgemm_rate(kSgemmSeconds);
      record.set("tokens_per_second", static_cast<double>(epoch.timed_rows) / epoch.seconds);
      record.set("sgemm_operations_per_second", sgemm_rate_);
      record.set("sgemm_share", epoch_operations_ / epoch.seconds / sgemm_rate_);
      record.set("peak_memory", memory_.peak());
      for (const Measure& measure : model_->measures()) record.set(measure.name, measure.value);
      operations_before_ = blas::operations();
      if (validation_targets_.empty()) print_epoch("no validation", 0);
    };
    hooks.on_validation = [this](const nn::TrainerProgress&, const nn::Validation& validation, double seconds) {
      print_epoch(fmt::format("valid {} {:.4f}", config_.train.valid_metric, validation.score), seconds);
      operations_before_ = blas::operations();
    };
    return {task_, *optimizer_, std::move(options), std::move(hooks)};
  }

  void print_epoch(const std::string& validation, double seconds) {
    if (epoch_.epoch == 0) {  // an earlier process trained it
      console_.line(fmt::format("{}  {:.1f} s", validation, seconds));
      return;
    }
    console_.line(fmt::format("epoch {:3d}  loss {:.4f}  {}  {:.1f} s + {:.1f} s  {:.0f} tokens/s ({:.0f} % of sgemm)",
                              epoch_.epoch, epoch_.loss, validation, epoch_.seconds, seconds,
                              static_cast<double>(epoch_.timed_rows) / epoch_.seconds,
                              100 * epoch_operations_ / epoch_.seconds / sgemm_rate_));
  }

  /// Empty for protocols without a validation part.
  RecommenderTask::Validate validation_function() {
    if (validation_targets_.empty()) return {};
    const MetricName metric = parse_metric(config_.train.valid_metric, config_.evaluation);
    return [this, metric, ranker = make_ranker(*model_)](std::int64_t) {
      const Evaluation validation = evaluate(ranker, *data_.split, Part::validation, validation_targets_, evaluation_);
      return nn::Validation{metric_of(validation, metric), to_json(validation)};
    };
  }

  std::vector<Evaluation> finish(const nn::TrainerProgress& progress) {
    nn::load_weights(directory_.best_weights(), model_->state(), identity_, checkpoint_identity_defaults(config_));
    const Ranker ranker = make_ranker(*model_);
    std::vector<Evaluation> test = baselines_;
    test.push_back(evaluate(ranker, *data_.split, Part::test, test_targets_, evaluation_));
    const Evaluation& result = test.back();
    Json report = Json::object({{"best_epoch", progress.best_epoch}});
    if (!validation_targets_.empty()) report.set("best_validation", progress.best_score.value());
    Json evaluations = Json::array();
    for (const Evaluation& evaluation : test) evaluations.push_back(to_json(evaluation));
    report.set("test", std::move(evaluations));
    write_ranks(directory_.ranks(), *data_.split, result);
    if (evaluation_.sampled) {
      write_negatives(directory_.negatives(), *data_.split, Part::test, test_targets_, *evaluation_.sampled);
    }
    Json record = Json::object({{"event", "test"}, {"step", progress.step}, {"best_epoch", progress.best_epoch}});
    const Json scores = to_json(result);
    for (const auto& [name, value] : scores.members()) record.set(name, value);
    LineWriter metrics(directory_.metrics());
    metrics.write_line(record.dump());
    metrics.sync();
    const std::string chosen =
        validation_targets_.empty()
            ? fmt::format("last of {} epochs", progress.epoch)
            : fmt::format("best epoch {} of {} (validation {} {:.4f})", progress.best_epoch, progress.epoch,
                          config_.train.valid_metric, progress.best_score.value());
    console_.line(fmt::format("{}; test, {}:", chosen, result.protocol));
    console_.block(metrics_table(test));
    const std::vector<std::uint8_t> trained = catalogue_of(*data_.split, {}).trained();
    RecommendOptions recommended{.k = kRecommended, .seen = evaluation_.seen, .stop_requested = stop_requested_};
    if (evaluation_.candidates == Candidates::train) recommended.candidates = trained;
    const auto lists = write_recommendations(directory_, ranker, data_, result, recommended, config_.keep_histories);
    show_recommendations(lists[static_cast<std::size_t>(shown_user_)]);
    // Its presence says that a run is finished: it comes last, but for the report, which shows it.
    write_file_atomically(directory_.test_metrics(), report.dump(2) + '\n');
    write_report(directory_, directory_.report());
    console_.line("run directory: " + directory_.path.string());
    return test;
  }

  void show_recommendations(const std::vector<ScoredItem>& list) {
    const auto history = data_.interactions->sequence(shown_user_);
    console_.line(fmt::format("user {}, latest items:", data_.interactions->users.name(shown_user_)));
    for (const std::int32_t item : history.last(std::min<std::size_t>(5, history.size()))) {
      console_.line("      " + data_.label(item));
    }
    console_.line("recommended next:");
    for (std::size_t r = 0; r < list.size(); ++r)
      console_.line(fmt::format("{:4d}  {}", r + 1, data_.label(list[r].item)));
  }

  std::int32_t find_shown_user() const {
    if (config_.show_user.empty()) return data_.split->targets(Part::test).front().user;
    const auto user = data_.interactions->users.find(config_.show_user);
    check<ConfigError>(user.has_value(), "show_user", "needs a user of ", config_.data.path, "; got \"",
                       config_.show_user, "\"");
    return *user;
  }

  MemoryScope memory_;  // first: it counts what the members below hold
  RunConfig config_;
  RunDirectory directory_;  // set by start() or resume(), as the lock
  std::optional<DirectoryLock> lock_;
  Console& console_;
  StopRequested stop_requested_;
  RunData data_;
  Json identity_;
  std::unique_ptr<SequenceModel> model_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  TrainingBatches batches_;
  std::shared_ptr<const Loss> loss_;
  EvaluationOptions evaluation_;
  std::vector<Target> validation_targets_;
  std::vector<Target> test_targets_;
  std::int32_t shown_user_;
  RecommenderTask task_;
  std::vector<Evaluation> baselines_;
  nn::EpochReport epoch_;  // the latest
  double epoch_operations_ = 0;
  std::uint64_t operations_before_ = 0;  // the epoch
  double sgemm_rate_ = 1;
};

/// Of a run that recorded its data, as they were; a kill may have come before that.
RunData data_to_resume(const RunDirectory& directory, const RunConfig& config, const StopRequested& stop_requested) {
  if (is_there(directory.data()) && is_there(directory.items())) {
    return load_recorded_data(directory, config, stop_requested);
  }
  check<IoError>(
      !is_there(directory.last_checkpoint()), directory.path.string(),
      "is of a build that did not keep the order of its items, so that its checkpoint cannot be matched with ",
      config.data.path, "; train it again");
  return load_run_data(config.data, stop_requested);
}

}  // namespace

RunOutcome train_run(const RunConfig& config, Console& console, const StopRequested& stop_requested) {
  flush_denormals(config.train.flush_denormals);
  return TrainingRun(config, load_run_data(config.data, stop_requested), console, stop_requested).start({});
}

RunOutcome train_run(const RunConfig& config, const RunDirectory& directory, Console& console,
                     const StopRequested& stop_requested) {
  flush_denormals(config.train.flush_denormals);
  TrainingRun run(config, load_run_data(config.data, stop_requested), console, stop_requested);
  make_run_directory(directory);
  return run.start(directory);
}

RunOutcome resume_run(const RunDirectory& directory, Console& console, const StopRequested& stop_requested,
                      const Tables& tables) {
  const RunConfig config = read_run_config(directory, tables);
  // Before the checkpoint is read: another process may be about to replace it.
  DirectoryLock lock = DirectoryLock::inside(directory.path);
  // Of files that this resume has no reason to write again, and of those beside it.
  remove_leftovers(directory.path);
  remove_leftovers(directory.last_checkpoint().parent_path());
  flush_denormals(config.train.flush_denormals);
  return TrainingRun(config, data_to_resume(directory, config, stop_requested), console, stop_requested)
      .resume(directory, std::move(lock));
}

}  // namespace tally::recsys
