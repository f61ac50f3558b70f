#include "tally/core/io/fingerprint.h"

// All that is used of the library is in its header.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>

namespace tally {

static_assert(XXH_VERSION_NUMBER >= 800, "needs xxHash 0.8: XXH3's values were not settled before");
static_assert(std::endian::native == std::endian::little, "lengths are hashed as they lie in memory");

struct Fingerprint::State {
  XXH3_state_t xxh3;  // which knows its own alignment
};

Fingerprint::Fingerprint() : state_(std::make_unique<State>()) { XXH3_64bits_reset(&state_->xxh3); }
Fingerprint::~Fingerprint() = default;
Fingerprint::Fingerprint(Fingerprint&&) noexcept = default;
Fingerprint& Fingerprint::operator=(Fingerprint&&) noexcept = default;

void Fingerprint::update(std::string_view part) {
  const std::uint64_t size = part.size();
  XXH3_64bits_update(&state_->xxh3, &size, sizeof(size));
  XXH3_64bits_update(&state_->xxh3, part.data(), part.size());
}

std::uint64_t Fingerprint::value() const { return XXH3_64bits_digest(&state_->xxh3); }

std::uint64_t fingerprint(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace tally
