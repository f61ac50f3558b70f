#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace tally::detail {

/// Cuts a stream of bytes into the blocks of 64 that SHA-1 and SHA-256 work on, and pads its end (FIPS 180-4, 5.1.1).
class HashBlocks {
 public:
  /// Calls compress(const unsigned char* block) for every block that is full.
  template <class Compress>
  void update(std::string_view bytes, Compress&& compress) {
    total_ += bytes.size();
    while (!bytes.empty()) {
      const std::size_t taken = std::min(bytes.size(), pending_.size() - pending_size_);
      std::memcpy(pending_.data() + pending_size_, bytes.data(), taken);
      pending_size_ += taken;
      bytes.remove_prefix(taken);
      if (pending_size_ == pending_.size()) {
        compress(pending_.data());
        pending_size_ = 0;
      }
    }
  }

  /// The end of the stream: a one bit, zeros and the length in bits.
  template <class Compress>
  void finish(Compress&& compress) {
    const std::uint64_t bits = total_ * 8;
    std::string padding(1, '\x80');
    padding.append((119 - pending_size_) % 64, '\0');
    for (int shift = 56; shift >= 0; shift -= 8) padding += static_cast<char>(bits >> shift & 0xff);
    update(padding, compress);
  }

  /// Word i of a block, which is big-endian.
  static std::uint32_t word(const unsigned char* block, std::size_t i) {
    return std::uint32_t{block[4 * i]} << 24 | std::uint32_t{block[4 * i + 1]} << 16 |
           std::uint32_t{block[4 * i + 2]} << 8 | std::uint32_t{block[4 * i + 3]};
  }

  static std::string hex(std::span<const std::uint32_t> words) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const std::uint32_t word : words) {
      for (int shift = 28; shift >= 0; shift -= 4) text += kDigits[word >> shift & 0xf];
    }
    return text;
  }

 private:
  std::array<unsigned char, 64> pending_{};
  std::size_t pending_size_ = 0;
  std::uint64_t total_ = 0;
};

}  // namespace tally::detail
