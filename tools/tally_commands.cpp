#include "tools/tally_commands.h"

#include "tools/commands.h"

namespace tally::tools {

int tally_commands(const recsys::Tables& tables, const ops::Catalog& catalog, int argc, const char* const* argv) {
  CLI::App app("Trains, evaluates and uses sequential recommenders, and checks the ops they are made of", "tally");
  int exit_code = 0;
  add_train(app, exit_code, tables);
  add_evaluate(app, exit_code, tables);
  add_recommend(app, exit_code, tables);
  add_report(app, exit_code, tables);
  add_study(app, exit_code, tables);
  add_config(app, exit_code, tables);
  add_tables(app, exit_code, tables);
  add_data(app, exit_code, tables);
  add_compress(app, exit_code, tables);
  add_embed(app, exit_code, tables);
  add_similar(app, exit_code, tables);
  add_op_commands(app, catalog, exit_code, tables);
  add_bench_lengths(app, tables);
  add_bench_sessions(app, tables);
  add_bench_reading(app);
  return run_commands(app, argc, argv, exit_code);
}

}  // namespace tally::tools
