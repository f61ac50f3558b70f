#include "tally/core/io/sha256.h"

#include <catch2/catch.hpp>

namespace tally::sha256_test {
namespace {

std::string sha256(const std::string& text) {
  Sha256 hash;
  hash.update(text);
  return hash.hex();
}

TEST_CASE("SHA-256 gives the published digests", "[sha256]") {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("SHA-256 does not depend on how the bytes are cut", "[sha256]") {
  const std::string text(1000, 'x');
  for (const std::size_t step : {1, 7, 55, 56, 63, 64, 65}) {
    Sha256 hash;
    for (std::size_t at = 0; at < text.size(); at += step) hash.update(text.substr(at, step));
    CHECK(hash.hex() == sha256(text));
  }
}

}  // namespace
}  // namespace tally::sha256_test
