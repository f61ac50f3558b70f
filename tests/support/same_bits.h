#pragma once

#include <cstring>
#include <vector>

namespace tally::test {

/// As many elements, and each has the bits of the other's: NaN is itself, and 0 is not -0.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace tally::test
