// tally report: the page about a run, again.
#include <optional>

#include "tally/core/io/directory_lock.h"
#include "tally/recsys/report/report.h"
#include "tally/recsys/run/trained_model.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {

void add_report(CLI::App& app, const CommandContext& context) {
  auto directory = std::make_shared<std::string>();
  auto output = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("report", "Write report.html of a run, finished or not");
  command->add_option("run", *directory, "Run directory")->required();
  command->add_option("--output", *output, "File to write in its place: of a run that is still being trained, say");
  command->callback([=] {
    const recsys::RunDirectory run{*directory};
    recsys::read_run_config(run, context.tables);  // a directory that is no run gets no lock file
    std::optional<DirectoryLock> lock;
    if (output->empty()) lock = DirectoryLock::inside(run.path);
    const std::filesystem::path page = output->empty() ? run.report() : std::filesystem::path(*output);
    recsys::write_report(run, page);
    print(detail::join(page.string(), '\n'));
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
