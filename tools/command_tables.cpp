// tally models, losses, ...: what a config may name, and the keys of each.
#include <fmt/format.h>

#include <algorithm>

#include "tally/core/options/option_text.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using namespace recsys;

/// What is said of a row beside its name and summary.
template <class Row>
std::string details_of(const Row& row) {
  if constexpr (requires { row.options; }) {
    const OptionList list = row.options.list();
    return list.options.empty() ? "  no keys of its own\n" : options_text(list);
  } else if constexpr (requires { row.values; }) {
    std::string text = "  " + row.source + '\n';
    for (const auto& [key, value] : row.values.members()) text += fmt::format("  {:<34} {}\n", key, value.dump());
    return text;
  } else {
    return "";
  }
}

template <class Row>
void add_table(CLI::App& app, int& exit_code, const std::string& command, const std::string& what,
               const ChoiceTable<Row>& table) {
  CLI::App* listed = app.add_subcommand(command, "The " + what + " that a config may name, and the keys of one");
  auto name = std::make_shared<std::string>();
  listed->add_option("name", *name, "One of them, with its keys");
  listed->callback([table, name, &exit_code] {
    if (!name->empty()) {
      const Row& row = table.at(*name);
      print(detail::join(row.name, ": ", row.summary, '\n', details_of(row)));
    } else {
      std::size_t width = 0;
      for (const Row& row : table) width = std::max(width, row.name.size());
      for (const Row& row : table) print(fmt::format("{:<{}}  {}\n", row.name, width, row.summary));
    }
    exit_code = 0;
  });
}

}  // namespace

void add_tables(CLI::App& app, const CommandContext& context) {
  add_table(app, context.exit_code, "models", "models", context.tables.models);
  add_table(app, context.exit_code, "attentions", "attentions of the model sasrec", context.tables.attentions);
  add_table(app, context.exit_code, "losses", "losses", context.tables.losses);
  add_table(app, context.exit_code, "learners", "learners", context.tables.learners);
  add_table(app, context.exit_code, "schedules", "schedules of the learning rate", context.tables.schedules);
  add_table(app, context.exit_code, "protocols", "protocols", context.tables.protocols);
  add_table(app, context.exit_code, "readers", "forms of files", context.tables.readers);
}

}  // namespace tally::tools
