#include "examples/question_answering/study_run.h"

#include <algorithm>
#include <numeric>
#include <sstream>

#include "tally/core/io/file.h"
#include "tally/core/io/fingerprint.h"
#include "tally/core/io/line_reader.h"
#include "tally/core/report/table.h"
#include "tally/nn/training/checkpoint.h"
#include "tally/nn/training/trainer.h"

namespace question_answering {

using tally::Json;
namespace fs = std::filesystem;
namespace nn = tally::nn;
namespace optim = tally::optim;

namespace {

const ReaderSetting& reader_of(const StudyConfig& config, const StudyRun& run) {
  const auto found = std::find_if(config.readers.begin(), config.readers.end(),
                                  [&](const ReaderSetting& reader) { return reader.name == run.reader; });
  tally::check<tally::ConfigError>(found != config.readers.end(), "study", "has no reader \"", run.reader, '"');
  return *found;
}

/// All that the result of a run depends on.
Json settings_of(const StudyConfig& config, const StudyData& data, const StudyRun& run) {
  StudyConfig copy = config;
  ReaderSetting reader = reader_of(config, run);
  return Json::object({{"data", data.fingerprint},
                       {"model", tally::to_json(tally::list_options(copy.model))},
                       {"train", tally::to_json(tally::list_options(copy.train))},
                       {"reader", tally::to_json(tally::list_options(reader))},
                       {"learning_rate", run.learning_rate},
                       {"seed", run.seed}});
}

Json to_json(const RunResult& result, const Json& settings) {
  return Json::object({{"settings", settings},
                       {"validation", result.validation},
                       {"best_epoch", result.best_epoch},
                       {"test", Json(result.test)},
                       {"validation_by_epoch", Json(result.validation_by_epoch)},
                       {"parameters", result.parameters},
                       {"diverged", result.diverged},
                       {"seconds", result.seconds},
                       {"words_per_second", result.words_per_second},
                       {"first_loss", result.first_loss},
                       {"last_loss", result.last_loss}});
}

RunResult from_json(const Json& json, const StudyRun& run, const std::string& name) {
  tally::JsonFields fields(json, name);
  fields.require<Json>("settings");
  RunResult result;
  result.run = run;
  result.validation = fields.require<double>("validation");
  result.best_epoch = fields.require<std::int64_t>("best_epoch");
  result.test = fields.require<std::vector<double>>("test");
  result.validation_by_epoch = fields.require<std::vector<double>>("validation_by_epoch");
  result.parameters = fields.require<std::int64_t>("parameters");
  result.seconds = fields.require<double>("seconds");
  result.words_per_second = fields.require<double>("words_per_second");
  result.first_loss = fields.require<double>("first_loss");
  result.last_loss = fields.require<double>("last_loss");
  result.diverged = fields.get<std::string>("diverged", "");
  fields.finish();
  return result;
}

/// What the training's log says, of all processes that took part in it.
void read_log(const fs::path& file, RunResult& result) {
  tally::LineReader reader(file);
  double words = 0;
  bool first = true;
  for (std::string_view line; reader.next(line);) {
    const Json json = tally::parse_json(line, file.string());
    const std::string event = json.at("event").as_string();
    if (event == "epoch") {
      result.last_loss = json.at("loss").as_double();
      if (first) result.first_loss = result.last_loss;
      first = false;
      result.seconds += json.at("seconds").as_double();
      words += json.at("words").as_double();
    } else if (event == "validation") {
      result.validation_by_epoch.push_back(json.at("accuracy").as_double());
    }
  }
  if (result.seconds > 0) result.words_per_second = words / result.seconds;
}

nn::TrainerOptions trainer_options(const StudyConfig& config, const StudyRun& run, std::int64_t steps,
                                   const fs::path& directory, tally::RngKey key) {
  nn::TrainerOptions options;
  options.epochs = config.train.epochs;
  options.patience = config.train.patience;
  options.clip_norm = config.train.clip_norm;
  optim::Schedule schedule;
  schedule.peak = run.learning_rate;
  schedule.warmup = config.train.warmup_steps;
  if (config.train.decay == LearningRateDecay::cosine) {
    schedule.decay = optim::Decay::cosine;
    schedule.total = config.train.epochs * steps;
    schedule.floor = 0.01;
  }
  options.learning_rate = schedule;
  options.key = key;
  options.files = nn::TrainerFiles::in(directory);
  return options;
}

}  // namespace

std::string StudyRun::directory() const {
  return reader + "-rate" + tally::format_exact(learning_rate) + "-seed" + std::to_string(seed);
}

double RunResult::test_mean() const {
  return std::accumulate(test.begin(), test.end(), 0.0) / static_cast<double>(std::max<std::size_t>(1, test.size()));
}

StudyData read_study_data(const DataOptions& options) {
  StudyData data{options.set.row().make(options.set.options), ""};
  tally::Fingerprint fingerprint;
  for (const auto* part : {&data.set.training, &data.set.validation, &data.set.test}) {
    for (const QuestionShard& shard : make_shards(*part, 1)) {
      for (const tally::Tensor& each :
           {shard.words, shard.question_words, shard.questions.tensor(), shard.places, shard.answers}) {
        fingerprint.update({reinterpret_cast<const char*>(each.raw_data()), each.bytes()});
      }
    }
  }
  std::ostringstream text;
  text << data.set.name << ' ' << std::hex << fingerprint.value();
  data.fingerprint = text.str();
  return data;
}

std::optional<RunResult> find_result(const StudyConfig& config, const StudyData& data, const StudyRun& run) {
  const fs::path directory = fs::path(config.output) / run.directory(), file = directory / "result.json";
  if (!tally::is_there(file)) return {};
  const Json json = tally::read_json(file);
  const Json* settings = json.find("settings");
  tally::check<tally::ConfigError>(settings != nullptr && *settings == settings_of(config, data, run), file.string(),
                                   "is the result of other settings or data; give the study another output");
  return from_json(json, run, file.string());
}

std::optional<RunResult> run_training(const StudyConfig& config, const StudyData& data, const StudyRun& run,
                                      const RunHooks& run_hooks) {
  if (auto result = find_result(config, data, run)) return result;
  const fs::path directory = fs::path(config.output) / run.directory();
  fs::create_directories(directory);
  const Json settings = settings_of(config, data, run);
  const tally::RngKey key{static_cast<std::uint64_t>(run.seed)};
  QuestionModel model =
      QuestionModel::make(config.model, reader_of(config, run).reader, data.set, key.fold_in("model"));
  QuestionTask task(model, data.set,
                    {.batch_questions = config.train.batch_questions, .shard_words = config.train.shard_words},
                    key.fold_in("task"), settings);
  optim::Adam adam({.learning_rate = run.learning_rate});
  const nn::TrainerOptions options = trainer_options(config, run, task.steps(), directory, key.fold_in("training"));
  nn::TrainerHooks hooks;
  hooks.stop_requested = run_hooks.stop_requested;
  hooks.on_epoch = [](const nn::TrainerProgress&, const nn::EpochReport& epoch, Json& record) {
    record.set("words", epoch.timed_rows);  // that the seconds beside it went into
  };
  hooks.on_validation = [&](const nn::TrainerProgress& progress, const nn::Validation& validation, double) {
    if (run_hooks.on_validation) run_hooks.on_validation(run, progress.epoch, validation.score);
  };
  nn::Trainer trainer(task, adam, options, hooks);
  nn::TrainerProgress progress = trainer.restore().value_or(nn::TrainerProgress{});
  std::string diverged;
  try {
    if (trainer.run(progress) == nn::TrainingOutcome::interrupted) return {};
  } catch (const tally::ValueError& error) {
    // A rate that was too high: a loss, a gradient or rows that are not finite. What was learned before counts.
    if (progress.best_epoch == 0) throw;
    diverged = error.what();
  }

  nn::load_weights(options.files.best, task.state(), settings);
  RunResult result;
  result.run = run;
  result.validation = progress.best_score.value_or(0);
  result.best_epoch = progress.best_epoch;
  result.parameters = nn::count_parameters(model);
  result.test =
      measure_accuracy(model, make_shards(data.set.test, config.train.shard_words), data.set.tasks.size()).by_task();
  result.diverged = diverged;
  read_log(options.files.log, result);
  tally::write_file_atomically(directory / "result.json", to_json(result, settings).dump(1) + '\n');
  return result;
}

}  // namespace question_answering
