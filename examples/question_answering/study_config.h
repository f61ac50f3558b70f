#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "examples/question_answering/data_sets.h"
#include "examples/question_answering/question_model.h"
#include "examples/question_answering/question_task.h"

namespace question_answering {

/// What the readers are compared on.
struct DataOptions {
  DataSetChoice set{data_sets(), "babi"};
  static void keys(auto& o, auto&& key) { key("set", o.set, "of documents and questions"); }
};

/// A reader of the study, under a name of its own.
struct ReaderSetting {
  std::string name;
  tally::nn::ReaderChoice reader{tally::nn::reader_kinds(), "softmax"};
  static void keys(auto& o, auto&& key) {
    key("name", o.name, "in tables and of directories; none: the reader's");
    key("reader", o.reader, "how questions read documents");
  }
};

/// Two readers whose accuracies are compared seed by seed.
struct GapSetting {
  std::string better, worse;
  static void keys(auto& o, auto&& key) {
    key("better", o.better, "name of a reader");
    key("worse", o.worse, "name of a reader");
  }
};

enum class LearningRateDecay { constant, cosine };
constexpr auto words(LearningRateDecay) {
  using W = tally::Word<LearningRateDecay>;
  return std::array{W{"constant", LearningRateDecay::constant}, W{"cosine", LearningRateDecay::cosine}};
}

struct TrainOptions {
  std::int64_t epochs = 20;
  std::int64_t batch_questions = 32;
  std::int64_t shard_words = 2048;
  double clip_norm = 1;
  std::int64_t warmup_steps = 0;
  LearningRateDecay decay = LearningRateDecay::constant;
  std::int64_t patience = 0;
  static void keys(auto& o, auto&& key) {
    key("epochs", o.epochs, tally::at_least(1), "passes over the training documents");
    key("batch_questions", o.batch_questions, tally::at_least(1), "questions of a step, in whole documents");
    key("shard_words", o.shard_words, tally::at_least(1), "words of documents that one core works on at a time");
    key("clip_norm", o.clip_norm, tally::at_least(0), "most that the gradients' joint norm may be; 0: any");
    key("warmup_steps", o.warmup_steps, tally::at_least(0), "steps from 0 to the learning rate");
    key("decay", o.decay, "of the learning rate: `cosine` ends at a hundredth of it with the last epoch");
    key("patience", o.patience, tally::at_least(0), "validations without improvement before stopping; 0: never");
  }
};

/// Readers times learning rates times seeds: every rate with the first `rate_seeds` seeds, the best of them with all.
struct StudyConfig {
  std::string name = {};
  std::string output = "question_answering";
  DataOptions data;
  QuestionModelOptions model;
  TrainOptions train;
  std::vector<ReaderSetting> readers = {};
  std::vector<double> learning_rates = {1e-3, 3e-3, 1e-2};
  std::vector<std::int64_t> seeds = {1, 2, 3};
  std::int64_t rate_seeds = 1;
  std::vector<GapSetting> gaps = {};
  static void keys(auto& o, auto&& key) {
    key("name", o.name, "title of tables and plots");
    key("output", o.output, "directory of runs, tables and plots");
    key("data", o.data, "what is read");
    key("model", o.model, "what reads it, the reader apart");
    key("train", o.train, "how it learns");
    key("readers", o.readers, "that are compared");
    key("learning_rates", o.learning_rates, tally::above(0),
        "tried by each reader with the first `rate_seeds` seeds; the one of the best mean validation is kept");
    key("seeds", o.seeds, tally::at_least(0), "of all random draws of a training");
    key("rate_seeds", o.rate_seeds, tally::at_least(1),
        "seeds that every learning rate is tried with; one is enough where trainings differ little");
    key("gaps", o.gaps, "differences that the study is about");
  }
  /// Throws ConfigError for lists without a member, names that are used twice or cannot be those of directories, and
  /// gaps between readers that are not there.
  void check(const std::string& section) const;
};

/// Reads a config, strictly. Paths in it are relative to its own directory, `output` to the working directory.
StudyConfig read_study_config(const std::filesystem::path& file);

}  // namespace question_answering
