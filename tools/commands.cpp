#include "tools/commands.h"

#include <iostream>
#include <new>

#include "tally/core/blas.h"
#include "tally/core/error.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/core/version.h"

namespace tally::tools {
namespace {

constexpr int kError = 1;
constexpr int kUsage = 2;

}  // namespace

void add_version(CLI::App& app, int& exit_code) {
  app.add_subcommand("version", "Version, build and machine")->callback([&exit_code] {
    std::cout << "tally " << version_description() << "\nblas: " << blas::description()
              << "\nsimd: " << simd_target() << "\nthreads: " << num_threads() << '\n';
    exit_code = 0;
  });
}

int run(CLI::App& app, int argc, const char* const* argv, const int& exit_code) {
  try {
    app.parse(argc, argv);
    return exit_code;
  } catch (const CLI::ParseError& error) {
    // Help is no error; everything else is a wrong command line, whatever number CLI11 gives it.
    return app.exit(error) == 0 ? 0 : kUsage;
  } catch (const ConfigError& error) {
    std::cerr << "tally: " << error.what() << '\n';
    return kUsage;
  } catch (const Error& error) {
    std::cerr << "tally: " << error.what() << '\n';
    return kError;
  } catch (const std::bad_alloc&) {
    std::cerr << "tally: out of memory\n";
    return kError;
  }
}

}  // namespace tally::tools
