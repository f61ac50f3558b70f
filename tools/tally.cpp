// The `tally` command.
#include "tools/commands.h"

int main(int argc, char** argv) {
  CLI::App app("Trains, evaluates and uses sequential recommenders, and checks the ops they are made of", "tally");
  int exit_code = 0;
  tally::tools::add_train(app, exit_code);
  tally::tools::add_evaluate(app, exit_code);
  tally::tools::add_recommend(app, exit_code);
  tally::tools::add_report(app, exit_code);
  tally::tools::add_study(app, exit_code);
  tally::tools::add_config(app, exit_code);
  tally::tools::add_data(app, exit_code);
  tally::tools::add_compress(app, exit_code);
  tally::tools::add_embed(app, exit_code);
  tally::tools::add_similar(app, exit_code);
  tally::tools::add_op_commands(app, tally::ops::standard_catalog(), exit_code);
  tally::tools::add_bench_lengths(app);
  tally::tools::add_bench_sessions(app);
  tally::tools::add_bench_reading(app);
  return tally::tools::run_commands(app, argc, argv, exit_code);
}
