#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "tally/core/io/hash_blocks.h"

namespace tally {

/// SHA-1 (FIPS 180-4) of a stream of bytes. Git names files by it, and so do published data sets; it is no protection
/// against forgery.
class Sha1 {
 public:
  void update(std::string_view bytes);
  /// 40 hexadecimal digits of everything seen so far; updates may go on afterwards.
  std::string hex() const;

 private:
  void compress(const unsigned char* block);

  std::array<std::uint32_t, 5> state_{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  detail::HashBlocks blocks_;
};

}  // namespace tally
