// tally data stats: what a data set is, how it was read, and its figures.

#include "tally/recsys/run/data_report.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using namespace recsys;

/// The config of that name, or one of defaults for a file of interactions.
RunConfig config_of(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                    const Tables& tables) {
  if (path.extension() == ".json") return load_config(path, overrides, tables);
  Json json = Json::object({{"data", Json::object({{"path", path.string()}})}});
  for (const std::string& assignment : overrides) apply_override(json, assignment, tables);
  return parse_config(json, tables);
}

}  // namespace

void add_data(CLI::App& app, const CommandContext& context) {
  CLI::App* command = app.add_subcommand("data", "What a data set is made of");
  command->require_subcommand(1);

  struct Options {
    std::string path;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* stats = command->add_subcommand(
      "stats", "Figures of a data set: of a config (.json) or a file of interactions, then --key=value");
  stats->add_option("path", options->path, "JSON config file, or a file of interactions")->required();
  stats->add_flag("--json", options->json, "As JSON");
  stats->allow_extras();
  stats->callback([=] {
    const DataConfig config = config_of(options->path, overrides_of(*stats), context.tables).data;
    const DataReport report = describe(config, read_run_data(config));
    print((options->json ? report.to_json().dump(2) + '\n' : report.to_text()));
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
