// With TALLY_TEST_LOCALE set, the tests run in a process whose locales write a decimal comma and groups of digits; 77
// says that they were skipped because the C locale is not to be had.
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#include <cstdio>
#include <optional>

#include "tests/support/hostile_locale.h"

int main(int argc, char** argv) {
  std::optional<tally::test::HostileLocale> locale;
  if (const char* wanted = std::getenv("TALLY_TEST_LOCALE"); wanted != nullptr && *wanted != '\0') {
    locale.emplace();
    if (!locale->has_c_locale()) {
      std::puts("skipped: there is neither the locale de_DE.UTF-8 nor localedef and its sources to make it");
      return 77;
    }
  }
  return Catch::Session().run(argc, argv);
}
