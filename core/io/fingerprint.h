#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

namespace tally {

/// A hash of 64 bits of a sequence of parts, for what is no secret and has no opponent: which weights a state belongs
/// to, and whether it is damaged. XXH3 (xxHash) of each part's length (u64, little-endian) and bytes. Its values stand
/// in files.
class Fingerprint {
 public:
  Fingerprint();
  ~Fingerprint();
  Fingerprint(Fingerprint&&) noexcept;
  Fingerprint& operator=(Fingerprint&&) noexcept;

  /// The next part: "a", "bc" and "ab", "c" differ.
  void update(std::string_view part);
  /// Of the parts so far.
  std::uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// XXH3 of bytes alone, as `xxhsum -H3` prints it.
std::uint64_t fingerprint(std::string_view bytes);

}  // namespace tally
