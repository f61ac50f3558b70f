#include "tally/core/io/sha1.h"

#include <catch2/catch.hpp>

namespace tally::sha1_test {
namespace {

std::string sha1(const std::string& text) {
  Sha1 hash;
  hash.update(text);
  return hash.hex();
}

TEST_CASE("SHA-1 gives the published digests", "[sha1]") {
  CHECK(sha1("") == "da39a3ee5e6b4b0d3255bfef95601890afd80709");
  CHECK(sha1("abc") == "a9993e364706816aba3e25717850c26c9cd0d89d");
  CHECK(sha1("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") == "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
  CHECK(sha1(std::string(1000000, 'a')) == "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

TEST_CASE("SHA-1 does not depend on how the bytes are cut", "[sha1]") {
  const std::string text(1000, 'x');
  for (const std::size_t step : {1, 7, 55, 56, 63, 64, 65}) {
    Sha1 hash;
    for (std::size_t at = 0; at < text.size(); at += step) hash.update(text.substr(at, step));
    CHECK(hash.hex() == sha1(text));
  }
}

}  // namespace
}  // namespace tally::sha1_test
