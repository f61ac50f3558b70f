#include "tally/core/io/sha1.h"

#include <bit>

namespace tally {

void Sha1::compress(const unsigned char* block) {
  std::array<std::uint32_t, 80> w;
  for (std::size_t i = 0; i < 16; ++i) w[i] = detail::HashBlocks::word(block, i);
  for (std::size_t i = 16; i < 80; ++i) w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
  auto [a, b, c, d, e] = state_;
  for (std::size_t i = 0; i < 80; ++i) {
    const std::uint32_t mixed = i < 20   ? ((b & c) | (~b & d)) + 0x5a827999
                                : i < 40 ? (b ^ c ^ d) + 0x6ed9eba1
                                : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc
                                         : (b ^ c ^ d) + 0xca62c1d6;
    const std::uint32_t next = std::rotl(a, 5) + mixed + e + w[i];
    e = d;
    d = c;
    c = std::rotl(b, 30);
    b = a;
    a = next;
  }
  const std::array<std::uint32_t, 5> sums{a, b, c, d, e};
  for (std::size_t i = 0; i < 5; ++i) state_[i] += sums[i];
}

void Sha1::update(std::string_view bytes) {
  blocks_.update(bytes, [this](const unsigned char* block) { compress(block); });
}

std::string Sha1::hex() const {
  Sha1 padded = *this;
  padded.blocks_.finish([&](const unsigned char* block) { padded.compress(block); });
  return detail::HashBlocks::hex(padded.state_);
}

}  // namespace tally
