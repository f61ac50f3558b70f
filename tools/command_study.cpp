// tally study: configs times seeds, and tables and plots of them.
#include <unistd.h>

#include <iostream>

#include "tally/core/io/directory_lock.h"
#include "tally/core/parallel.h"
#include "tally/recsys/study/run_study.h"
#include "tally/recsys/study/study_tables.h"
#include "tools/commands.h"
#include "tools/print.h"
#include "tools/signals.h"

namespace tally::tools {
namespace {

using namespace recsys;

const char* name_of(StudyState state) {
  return state == StudyState::finished ? "finished" : state == StudyState::interrupted ? "interrupted" : "not begun";
}

}  // namespace

void add_study(CLI::App& app, const CommandContext& context) {
  struct Options {
    std::string file, output;
    std::vector<std::string> only;
    bool list = false, table_only = false;
    int threads = 0;
  };
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("study", "Train configs times seeds, compare them, write tables and plots");
  command->add_option("file", options->file, "JSON study file")->required();
  command->add_option("--output", options->output, "Directory of the study (default: studies/NAME)");
  command->add_option("--only", options->only, "Names of runs, or of trainings (RUN-seedN)")->delimiter(',');
  CLI::Option* list = command->add_flag("--list", options->list, "Name the trainings and how far they are");
  command->add_flag("--table-only", options->table_only, "Write tables and plots of what is there, train nothing")
      ->excludes(list);
  const CLI::Option* threads =
      command->add_option("--threads", options->threads, "Threads to use (default: the CPUs of this process)");
  command->callback([=] {
    check<ConfigError>(threads->count() == 0 || options->threads >= 1, "--threads", "needs at least 1; got ",
                       options->threads);
    const Study study = read_study(options->file, context.tables);
    const std::filesystem::path output = options->output.empty() ? std::filesystem::path("studies") / study.name
                                                                 : std::filesystem::path(options->output);
    context.exit_code = 0;
    if (options->list) {
      for (const StudyItem& item : study_items(study, output, options->only)) {
        print(detail::join(item.label(), '\t', name_of(item.state), '\n'));
      }
      return;
    }
    if (options->table_only) {
      check<IoError>(std::filesystem::is_directory(output), output.string(), "is no directory of a study");
      check_study_items(study_items(study, output, options->only), output);
      const DirectoryLock lock = DirectoryLock::inside(output);
      write_study(study, output);
      print(detail::join((output / "study.md").string(), '\n'));
      return;
    }
    note_stop_signals();
    // Before the first thread exists: workers take over whether denormals are flushed.
    flush_denormals(study.runs.front().config.train.flush_denormals);
    if (options->threads > 0) set_num_threads(options->threads);
    Console console(std::cout, isatty(STDOUT_FILENO) != 0);
    nn::TrainingOutcome outcome = nn::TrainingOutcome::interrupted;
    try {
      outcome = run_study(study, output, options->only, console, stop_requested);
    } catch (const Stopped&) {
      outcome = nn::TrainingOutcome::interrupted;  // while data were read: nothing was written
    }
    if (outcome == nn::TrainingOutcome::interrupted) {
      console.line("stopped; the same command goes on");
      context.exit_code = stopped_exit_code();
      return;
    }
    console.line("study: " + (output / "study.md").string());
  });
}

}  // namespace tally::tools
