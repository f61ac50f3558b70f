#include "tools/op_commands.h"

#include <clocale>
#include <locale>
#include <new>

#include "tally/core/io/file.h"
#include "tally/core/io/json_fields.h"
#include "tally/core/io/printable.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

/// CLI11 speaks of an unexpected argument; the reader misspelt a command.
void check_command_name(const CLI::App& app, int argc, const char* const* argv) {
  const std::string word = argc > 1 ? argv[1] : "-";
  if (word.empty() || word[0] == '-') return;
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_name() == word) return;
    names.push_back(command->get_name());
  }
  const std::string nearest = nearest_name(word, names);
  fail<ConfigError>(app.get_name(), "no command named '", word, "'",
                    nearest.empty() ? "; see --help" : "; did you mean '" + nearest + "'?");
}

/// The classic locale for a scope: CLI11 reads and writes numbers by the global ones, as do streams that are made in
/// it.
class ClassicLocale {
 public:
  ClassicLocale() : c_before_(std::setlocale(LC_ALL, nullptr)), before_(std::locale::global(std::locale::classic())) {}
  ~ClassicLocale() {
    std::locale::global(before_);
    std::setlocale(LC_ALL, c_before_.c_str());
  }
  ClassicLocale(const ClassicLocale&) = delete;
  ClassicLocale& operator=(const ClassicLocale&) = delete;

 private:
  std::string c_before_;  // before the global one, which sets it
  std::locale before_;
};

int report(std::string_view program, std::string_view message, int exit_code) {
  complain(detail::join(program, ": ", printable(message), '\n'));
  return exit_code;
}

}  // namespace

std::vector<const ops::OpEntry*> chosen_ops(const ops::Catalog& catalog, const std::vector<std::string>& names,
                                            bool all) {
  std::vector<const ops::OpEntry*> chosen;
  for (const std::string& name : names) chosen.push_back(&catalog.find(name));
  if (all) {
    chosen.clear();
    for (const ops::OpEntry& entry : catalog.entries()) chosen.push_back(&entry);
  }
  return chosen;
}

std::vector<std::string> overrides_of(const CLI::App& command) {
  std::vector<std::string> overrides;
  for (const std::string& word : command.remaining()) {
    check<ConfigError>(word.starts_with("--"), word, "is neither an option nor --key=value");
    overrides.push_back(word.substr(2));
  }
  return overrides;
}

int guarded(std::string_view program, const std::function<int()>& run) {
  try {
    return run();
  } catch (const ConfigError& error) {
    return report(program, error.what(), 2);
  } catch (const std::bad_alloc&) {
    return report(program, "not enough memory", 1);
  } catch (const std::exception& error) {
    return report(program, error.what(), 1);
  }
}

namespace {

/// No option but a list means anything by an empty text, which a shell makes of a variable that is not set.
void refuse_empty_texts(CLI::App& app) {
  for (CLI::App* command : app.get_subcommands({})) {
    for (CLI::Option* option : command->get_options()) {
      if (option->get_items_expected_max() == 0 || option->get_type_name() == kListType) continue;  // the first: a flag
      option->check([](const std::string& text) { return std::string(text.empty() ? "needs a text; got none" : ""); });
    }
  }
}

}  // namespace

int run_commands(CLI::App& app, int argc, const char* const* argv, const int& exit_code,
                 const std::function<void()>& add_all) {
  hold_standard_descriptors();
  ignore_write_signals();
  const ClassicLocale locale;
  app.require_subcommand(1);
  return guarded(app.get_name(), [&] {
    try {
      add_all();
      refuse_empty_texts(app);
      check_command_name(app, argc, argv);
      app.parse(argc, argv);
      flush_printed();
      return exit_code;
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) {  // --help
        app.exit(error);
        flush_printed();
        return 0;
      }
      return report(app.get_name(), std::string(error.what()) + "; see --help", 2);
    }
  });
}

int op_commands(const ops::Catalog& catalog, int argc, const char* const* argv) {
  const std::string_view program = argc > 0 ? argv[0] : "tally";
  return guarded(program, [&] {
    CLI::App app("Commands over a catalog of ops", std::string(program));
    int exit_code = 0;
    const recsys::Tables tables = recsys::standard();
    const CommandContext context{catalog, tables, exit_code};
    return run_commands(app, argc, argv, exit_code, [&] {
#define TALLY_ADD(name) add_##name(app, context);
      TALLY_OP_COMMANDS(TALLY_ADD)
#undef TALLY_ADD
    });
  });
}

}  // namespace tally::tools
