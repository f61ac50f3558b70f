// tally train, evaluate and recommend.
#include <unistd.h>

#include <iostream>

#include "tally/core/parallel.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/run/run_evaluation.h"
#include "tally/recsys/run/train_run.h"
#include "tools/commands.h"
#include "tools/signals.h"

namespace tally::tools {
namespace {

using namespace recsys;

int exit_code_of(const RunOutcome& outcome) {
  return outcome.training == TrainingOutcome::interrupted ? stopped_exit_code() : 0;
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

void add_train(CLI::App& app, int& exit_code) {
  struct Options {
    std::string config, resume;
    int threads = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("train", "Train a recommender: a config file, then --key=value for any of its keys");
  command->add_option("config", options->config, "JSON config file");
  command->add_option("--resume", options->resume, "Go on with the run in this directory");
  const CLI::Option* threads =
      command->add_option("--threads", options->threads, "Threads to use (default: the CPUs of this process)");
  command->allow_extras();
  command->callback([=, &exit_code] {
    check<ConfigError>(options->config.empty() != options->resume.empty(), "train",
                       "needs a config file, or --resume RUN");
    check<ConfigError>(options->resume.empty() || command->remaining().empty(), "train",
                       "takes no --key=value with --resume: a run keeps its config");
    check<ConfigError>(threads->count() == 0 || options->threads >= 1, "--threads", "needs at least 1; got ",
                       options->threads);
    note_stop_signals();
    Console console(std::cout, isatty(STDOUT_FILENO) != 0);
    const bool resume = !options->resume.empty();
    const RunConfig config =
        resume ? read_run_config({options->resume}) : load_config(options->config, overrides_of(*command));
    // Before the first thread exists: workers take over whether denormals are flushed.
    flush_denormals(config.train.flush_denormals);
    if (options->threads > 0) set_num_threads(options->threads);
    exit_code = exit_code_of(resume ? resume_run({options->resume}, console, stop_requested)
                                    : train_run(config, console, stop_requested));
  });
}

void add_evaluate(CLI::App& app, int& exit_code) {
  auto directory = std::make_shared<std::string>();
  auto part = std::make_shared<std::string>("test");
  CLI::App* command = app.add_subcommand("evaluate", "Evaluate the best weights of a run again");
  command->add_option("run", *directory, "Run directory")->required();
  command->add_option("--part", *part, "test or validation")->check(CLI::IsMember({"test", "validation"}));
  command->callback([=, &exit_code] {
    const OpenedRun run = open_run({*directory});
    const Part chosen = *part == "test" ? Part::test : Part::validation;
    const Evaluation evaluation =
        evaluate(make_ranker(*run.model), *run.data.split, chosen,
                 evaluated_targets(run.config, *run.data.split, chosen), evaluation_options(run.config));
    std::cout << evaluation.to_text();
    exit_code = 0;
  });
}

void add_recommend(CLI::App& app, int& exit_code) {
  struct Options {
    std::string directory, history;
    std::int64_t k = 10;
    bool keep_seen = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("recommend", "Recommend items for a history, of a user known or not");
  command->add_option("run", options->directory, "Run directory")->required();
  command->add_option("--history", options->history, "Item ids, oldest first, separated by commas")->required();
  command->add_option("--k", options->k, "Number of items");
  command->add_flag("--keep-seen", options->keep_seen, "Recommend items of the history too");
  command->callback([=, &exit_code] {
    check<ConfigError>(options->k >= 1, "--k", "needs at least 1; got ", options->k);
    const OpenedRun run = open_run({options->directory});
    const IdMap& items = run.data.interactions->items;
    std::vector<std::int32_t> history;
    for (const std::string& id : split_list(options->history)) {
      const auto item = items.find(id);
      check<ConfigError>(item.has_value(), "--history", "item '", id, "' is not in ", run.config.data.path);
      history.push_back(*item);
    }
    check<ConfigError>(!history.empty(), "--history", "needs at least one item id");
    const auto lists = recommend(make_ranker(*run.model), Sequences::from({history}, items.size()), options->k,
                                 options->keep_seen ? SeenFilter::none : SeenFilter::full);
    std::cout << "rank\titem_id\tscore\ttitle\n";
    for (std::size_t r = 0; r < lists[0].size(); ++r) {
      const ScoredItem& scored = lists[0][r];
      std::cout << r + 1 << '\t' << items.name(scored.item) << '\t' << scored.score << '\t'
                << run.data.label(scored.item) << '\n';
    }
    exit_code = 0;
  });
}

}  // namespace tally::tools
