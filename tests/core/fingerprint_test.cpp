#include "tally/core/io/fingerprint.h"

#include <catch2/catch.hpp>
#include <set>
#include <string>

namespace fingerprint_test {

using namespace tally;

// As `xxhsum -H3` prints them. These values stand in files.
TEST_CASE("fingerprints are the numbers that files hold", "[fingerprint]") {
  std::string all;
  for (int i = 0; i < 5 * 256; ++i) all.push_back(static_cast<char>(i % 256));
  CHECK(fingerprint("") == 0x2d06800538d394c2ULL);
  CHECK(fingerprint("tally") == 0xa8562a4e47ed47bbULL);
  CHECK(fingerprint("12345678") == 0x62e29b4cad9e2ef6ULL);
  CHECK(fingerprint("twelve bytes") == 0x23a2e78170911342ULL);
  CHECK(fingerprint(all) == 0x4844b009e164352eULL);
}

TEST_CASE("fingerprints of parts know where a part ends", "[fingerprint]") {
  const auto of_parts = [](std::string_view a, std::string_view b) {
    Fingerprint hash;
    hash.update(a);
    hash.update(b);
    return hash.value();
  };
  CHECK(of_parts("a", "bc") == 0xf42ee0df2a023ef1ULL);  // of the length 1 in eight bytes, "a", the length 2, "bc"
  CHECK(of_parts("ab", "c") == 0x642d4debfebf33aeULL);
  CHECK(Fingerprint().value() == fingerprint(""));
  Fingerprint some;
  some.update("a");
  Fingerprint moved = std::move(some);
  moved.update("bc");
  CHECK(moved.value() == of_parts("a", "bc"));
}

TEST_CASE("a fingerprint tells small changes and lengths apart", "[fingerprint]") {
  const std::string text = "thirty-seven bytes of plain content..";
  std::set<std::uint64_t> seen{fingerprint(text)};
  std::size_t made = 1;
  for (std::size_t bit = 0; bit < 8 * text.size(); ++bit, ++made) {
    std::string changed = text;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    seen.insert(fingerprint(changed));
  }
  for (std::size_t length = 0; length < 100; ++length, ++made) seen.insert(fingerprint(std::string(length, '\0')));
  CHECK(seen.size() == made);
}

}  // namespace fingerprint_test
