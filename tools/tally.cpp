// The tally command.
#include "tools/commands.h"

int main(int argc, char** argv) {
  using namespace tally::tools;
  CLI::App app{"Trains, evaluates and uses sequential recommenders, and checks the ops they are made of"};
  app.require_subcommand(1);
  int exit_code = 0;
  add_train(app, exit_code);
  add_evaluate(app, exit_code);
  add_recommend(app, exit_code);
  add_version(app, exit_code);
  return run(app, argc, argv, exit_code);
}
