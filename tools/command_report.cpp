// tally report: the page about a run, again.
#include <iostream>

#include "tally/recsys/report/report.h"
#include "tools/commands.h"

namespace tally::tools {

void add_report(CLI::App& app, int& exit_code) {
  auto directory = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("report", "Write report.html of a run, finished or not");
  command->add_option("run", *directory, "Run directory")->required();
  command->callback([=, &exit_code] {
    const recsys::RunDirectory run{*directory};
    recsys::write_report(run);
    std::cout << run.report().string() << '\n';
    exit_code = 0;
  });
}

}  // namespace tally::tools
