// The commands over a catalog, in a program of its own.
#include <tally/tools/op_commands.h>

int main(int argc, char** argv) { return tally::tools::op_commands(tally::ops::standard_catalog(), argc, argv); }
