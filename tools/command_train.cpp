// tally train and evaluate.
#include <unistd.h>

#include <iostream>

#include "tally/core/parallel.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/run/run_evaluation.h"
#include "tally/recsys/run/train_run.h"
#include "tally/recsys/run/trained_model.h"
#include "tools/commands.h"
#include "tools/print.h"
#include "tools/signals.h"

namespace tally::tools {
namespace {

using namespace recsys;

int exit_code_of(const RunOutcome& outcome) {
  return outcome.training == nn::TrainingOutcome::interrupted ? stopped_exit_code() : 0;
}

}  // namespace

void add_train(CLI::App& app, const CommandContext& context) {
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
  command->callback([=] {
    check<ConfigError>(options->config.empty() != options->resume.empty(), "train",
                       "needs a config file, or --resume RUN");
    check<ConfigError>(options->resume.empty() || command->remaining().empty(), "train",
                       "takes no --key=value with --resume: a run keeps its config");
    check<ConfigError>(threads->count() == 0 || options->threads >= 1, "--threads", "needs at least 1; got ",
                       options->threads);
    note_stop_signals();
    Console console(std::cout, isatty(STDOUT_FILENO) != 0);
    const bool resume = !options->resume.empty();
    const RunConfig config = resume ? read_run_config({options->resume}, context.tables)
                                    : load_config(options->config, overrides_of(*command), context.tables);
    // Before the first thread exists: workers take over whether denormals are flushed.
    flush_denormals(config.train.flush_denormals);
    if (options->threads > 0) set_num_threads(options->threads);
    try {
      context.exit_code = exit_code_of(resume ? resume_run({options->resume}, console, stop_requested, context.tables)
                                              : train_run(config, console, stop_requested));
    } catch (const Stopped&) {
      console.line(resume ? "stopped while reading; the run is as it was" : "stopped before there was a run");
      context.exit_code = stopped_exit_code();
    }
  });
}

void add_evaluate(CLI::App& app, const CommandContext& context) {
  auto directory = std::make_shared<std::string>();
  auto part = std::make_shared<std::string>("test");
  CLI::App* command = app.add_subcommand("evaluate", "Evaluate the best weights of a run again");
  command->add_option("run", *directory, "Run directory")->required();
  command->add_option("--part", *part, "test or validation")->check(CLI::IsMember({"test", "validation"}));
  command->callback([=] {
    const OpenedRun run = open_run({*directory}, context.tables);
    const RunConfig& config = run.trained.config;
    const Part chosen = *part == "test" ? Part::test : Part::validation;
    const Evaluation evaluation =
        evaluate(make_ranker(*run.trained.model), *run.data.split, chosen,
                 evaluated_targets(config, *run.data.split, chosen), evaluation_options(config));
    print(evaluation.to_text());
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
