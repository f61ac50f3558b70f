// tally config: what a config resolves to, and the protocols that it may name.
#include <fmt/format.h>

#include <algorithm>

#include "tally/recsys/config/config.h"
#include "tally/recsys/config/options_page.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using namespace recsys;

void show(const std::string& path, const std::vector<std::string>& overrides, bool json, const Tables& tables) {
  const std::vector<ConfigValue> values = explain_config(path, overrides, tables);
  if (json) {
    Json all = Json::object();
    for (const ConfigValue& each : values)
      all.set(each.key, Json::object({{"value", each.value}, {"origin", each.origin}}));
    print(detail::join(all.dump(2), '\n'));
    return;
  }
  std::size_t key_width = 0, value_width = 0;
  for (const ConfigValue& each : values) {
    key_width = std::max(key_width, each.key.size());
    value_width = std::max(value_width, std::min<std::size_t>(each.value.dump().size(), 40));
  }
  for (const ConfigValue& each : values) {
    print(fmt::format("{:<{}}  {:<{}}  {}\n", each.key, key_width, each.value.dump(), value_width, each.origin));
  }
  print(detail::join("protocol: ", protocol_label(load_config(path, overrides, tables)), '\n'));
}

}  // namespace

void add_config(CLI::App& app, const CommandContext& context) {
  CLI::App* command = app.add_subcommand("config", "What a config resolves to, and the protocols it may name");
  command->require_subcommand(1);

  struct Options {
    std::string path;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* shown = command->add_subcommand("show", "Each value of a config and where it came from");
  shown->add_option("config", options->path, "JSON config file")->required();
  shown->add_flag("--json", options->json, "As JSON");
  shown->allow_extras();
  shown->callback([=] {
    show(options->path, overrides_of(*shown), options->json, context.tables);
    context.exit_code = 0;
  });

  CLI::App* listed = command->add_subcommand("protocols", "The named protocols and what each of them sets");
  listed->callback([context] {
    for (const Protocol& protocol : context.tables.protocols) {
      print(detail::join(protocol.name, ": ", protocol.summary, "\n  ", protocol.source, '\n'));
      for (const auto& [key, value] : protocol.values.members()) {
        print(fmt::format("  {:<34} {}\n", key, value.dump()));
      }
    }
    context.exit_code = 0;
  });

  CLI::App* page = command->add_subcommand("options", "Every key with type, default and meaning, as Markdown");
  page->callback([context] {
    print(options_page(context.tables));
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
