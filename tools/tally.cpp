// The `tally` command.
#include "tools/op_commands.h"
#include "tools/tally_commands.h"

int main(int argc, char** argv) {
  return tally::tools::guarded("tally", [&] {
    return tally::tools::tally_commands(tally::recsys::standard(), tally::ops::standard_catalog(), argc, argv);
  });
}
