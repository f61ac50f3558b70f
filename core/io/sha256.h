#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "tally/core/io/hash_blocks.h"

namespace tally {

/// SHA-256 (FIPS 180-4) of a stream of bytes: names data sets and weights so that results can be matched to them.
class Sha256 {
 public:
  void update(std::string_view bytes);
  /// 64 hexadecimal digits of everything seen so far; updates may go on afterwards.
  std::string hex() const;

 private:
  void compress(const unsigned char* block);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  detail::HashBlocks blocks_;
};

}  // namespace tally
