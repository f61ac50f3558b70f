#include "tally/core/io/printable.h"

#include <catch2/catch.hpp>

#include "tally/core/io/json.h"

namespace printable_test {

using namespace tally;

TEST_CASE("no byte of printable text drives a terminal", "[printable]") {
  CHECK(printable("plain, \xC3\xA9, \xE2\x80\xA6 and \xF0\x9F\x98\x80") ==
        "plain, \xC3\xA9, \xE2\x80\xA6 and \xF0\x9F\x98\x80");
  CHECK(printable("\x1b[2J\a\x7f") == "\\x1b[2J\\x07\\u007f");
  CHECK(printable("\xC2\x9B"
                  "31m\xC2\xA0") == "\\u009b31m\xC2\xA0");
  CHECK(printable("a\x9b"
                  "b\xff") == "a\\x9bb\\xff");
  CHECK(printable("a\tb\n\r", "\n\t") == "a\tb\n\\x0d");
  CHECK(printable(std::string_view("\0", 1)) == "\\x00");
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string shown = printable(std::string{static_cast<char>(first), static_cast<char>(second)});
      CHECK(find_invalid_utf8(shown) == std::string_view::npos);
      for (const char c : shown) CHECK((static_cast<unsigned char>(c) >= 0x20 && c != 0x7f));
      CHECK(shown.find("\xC2\x9b") == std::string::npos);
    }
  }
}

TEST_CASE("printable JSON is the same JSON", "[printable]") {
  const Json json = Json::object({{"a\x1b", "\x7f\xC2\x9B\xC3\xA9\t\n"}});
  CHECK(parse_json(printable(json.dump(2), "\n\t")) == json);
}

}  // namespace printable_test
