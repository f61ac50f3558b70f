#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "tally/core/error.h"

namespace tally {

static_assert(std::endian::native == std::endian::little, "values are saved as they lie in memory");

/// Appends plain values to bytes, as they lie in memory.
template <class T>
void write_values(std::string& to, std::span<const T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  to.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}
template <class T>
void write_value(std::string& to, const T& value) {
  write_values(to, std::span<const T>(&value, 1));
}
/// A length, then the bytes.
inline void write_text(std::string& to, std::string_view text) {
  write_value(to, static_cast<std::uint64_t>(text.size()));
  to += text;
}

/// Reads what the functions above wrote. Throws IoError "[name] ..." where the bytes end too early.
class ByteReader {
 public:
  ByteReader(std::string_view bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  std::string_view take(std::uint64_t count) {
    check<IoError>(count <= bytes_.size(), name_, "the saved bytes are cut off: needs ", count, " more; got ",
                   bytes_.size());
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  template <class T>
  void read(std::span<T> to) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::string_view taken = take(to.size_bytes());
    if (!taken.empty()) std::memcpy(to.data(), taken.data(), taken.size());
  }
  template <class T>
  T read() {
    T value;
    read(std::span<T>(&value, 1));
    return value;
  }
  std::string_view text() { return take(read<std::uint64_t>()); }
  std::size_t left() const { return bytes_.size(); }
  void expect_end() const { check<IoError>(bytes_.empty(), name_, "the saved bytes are ", bytes_.size(), " too many"); }

 private:
  std::string_view bytes_;
  std::string_view name_;
};

}  // namespace tally
