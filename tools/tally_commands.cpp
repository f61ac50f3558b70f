#include "tools/tally_commands.h"

#include "tools/commands.h"

namespace tally::tools {

int tally_commands(const recsys::Tables& tables, const ops::Catalog& catalog, int argc, const char* const* argv) {
  CLI::App app("Trains, evaluates and uses sequential recommenders, and checks the ops they are made of", "tally");
  int exit_code = 0;
  const CommandContext context{catalog, tables, exit_code};
  return run_commands(app, argc, argv, exit_code, [&] {
#define TALLY_ADD(name) add_##name(app, context);
    TALLY_COMMANDS(TALLY_ADD)
#undef TALLY_ADD
  });
}

}  // namespace tally::tools
