// question_answering CONFIG.json [--only READER] [--output DIRECTORY]: compares readers of documents (nn/readers/) on
// question answering. A study can be stopped and called again: what is finished is read, what was stopped goes on.
#include <algorithm>
#include <csignal>
#include <exception>
#include <iostream>
#include <string>

#include "examples/question_answering/study_report.h"
#include "tally/core/io/file.h"
#include "tally/core/parallel.h"

namespace qa = question_answering;

namespace {

volatile std::sig_atomic_t received_signal = 0;

void on_signal(int number) {
  received_signal = number;
  std::signal(number, SIG_DFL);  // a second one ends the program at once
}

bool stop_requested() { return received_signal != 0; }

void print_progress(const qa::StudyRun& run, std::int64_t epoch, double accuracy) {
  std::cout << run.directory() << ": epoch " << epoch << ", accuracy " << tally::format_fixed(accuracy, 3) << std::endl;
}

struct Arguments {
  std::string config, only, output;
};

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool has_value = i + 1 < argc;
    if (word == "--only" && has_value) {
      arguments.only = argv[++i];
    } else if (word == "--output" && has_value) {
      arguments.output = argv[++i];
    } else {
      tally::check<tally::ConfigError>(!word.starts_with("--") && arguments.config.empty(), "question_answering",
                                       "needs CONFIG.json [--only READER] [--output DIRECTORY]; got ", word);
      arguments.config = word;
    }
  }
  tally::check<tally::ConfigError>(!arguments.config.empty(), "question_answering",
                                   "needs CONFIG.json [--only READER] [--output DIRECTORY]");
  return arguments;
}

/// Trains what is missing, of one reader or of all. False when it was stopped.
bool train_all(const qa::StudyConfig& config, const qa::StudyData& data, const std::string& only) {
  const qa::RunHooks hooks{stop_requested, print_progress};
  for (const qa::ReaderSetting& reader : config.readers) {
    if (!only.empty() && reader.name != only) continue;
    std::vector<qa::RunResult> tried;
    for (std::int64_t i = 0; i < config.rate_seeds; ++i) {
      for (const double rate : config.learning_rates) {
        const std::int64_t seed = config.seeds[static_cast<std::size_t>(i)];
        const auto result = qa::run_training(config, data, {reader.name, rate, seed}, hooks);
        if (!result) return false;
        tried.push_back(*result);
      }
    }
    const double rate = qa::chosen_rate(tried);
    for (const std::int64_t seed : config.seeds) {
      if (!qa::run_training(config, data, {reader.name, rate, seed}, hooks)) return false;
    }
  }
  return true;
}

std::vector<qa::RunResult> finished_runs(const qa::StudyConfig& config, const qa::StudyData& data) {
  std::vector<qa::RunResult> finished;
  for (const qa::ReaderSetting& reader : config.readers) {
    for (const std::int64_t seed : config.seeds) {
      for (const double rate : config.learning_rates) {
        if (auto result = qa::find_result(config, data, {reader.name, rate, seed})) finished.push_back(*result);
      }
    }
  }
  return finished;
}

int run(const Arguments& arguments) {
  qa::StudyConfig config = qa::read_study_config(arguments.config);
  if (!arguments.output.empty()) config.output = arguments.output;
  std::vector<std::string> names;
  for (const qa::ReaderSetting& reader : config.readers) names.push_back(reader.name);
  tally::check<tally::ConfigError>(
      arguments.only.empty() || std::find(names.begin(), names.end(), arguments.only) != names.end(), "--only",
      "needs a reader of the study", tally::suggestion(arguments.only, names));
  const qa::StudyData data = qa::read_study_data(config.data);
  const qa::QuestionSet& set = data.set;
  std::cout << config.name << ": " << set.tasks.size() << " tasks, " << set.training.size() << " documents of "
            << qa::count_words(set.training) << " words with " << qa::count_questions(set.training)
            << " questions to learn from, " << qa::count_questions(set.validation) << " to validate, "
            << qa::count_questions(set.test) << " to test; " << set.words.size() << " words, " << set.answers.size()
            << " answers\n";
  const bool all = train_all(config, data, arguments.only);
  std::cout << qa::write_report(config, set, finished_runs(config, data));
  if (!all) std::cout << "Stopped; call it again to go on.\n";
  return all ? 0 : 128 + received_signal;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments arguments = parse(argc, argv);
    tally::hold_standard_descriptors();
    tally::ignore_write_signals();
    tally::flush_denormals(true);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) std::signal(number, on_signal);
    return run(arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
