#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "tally/core/error.h"
#include "tally/core/stop.h"

namespace tally {

/// What programs of Windows write before text in UTF-8.
inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
/// `text` less a UTF-8 byte order mark at its beginning: for the first line of whatever is read.
constexpr std::string_view without_byte_order_mark(std::string_view text) {
  return text.starts_with(kByteOrderMark) ? text.substr(kByteOrderMark.size()) : text;
}

/// Reads a text file line by line, in large blocks. Plain and gzip'd files (several members one after the other too)
/// are told apart by their first bytes; the path "-" is standard input; pipes will do.
///
///     LineReader reader(path);
///     for (std::string_view line; reader.next(line);) parse(line) || reader.refuse("needs three columns");
///
/// "\n" and "\r\n" end a line and are not part of it; the last line may do without. A UTF-8 byte order mark at the
/// start of the file is skipped.
class LineReader {
 public:
  static constexpr std::size_t kMaxLine = std::size_t{16} << 20;

  /// Throws IoError when the file cannot be opened or is a directory. `stop_requested` is asked while a pipe has
  /// nothing to read, or nobody who writes yet; reading then throws Stopped.
  explicit LineReader(const std::filesystem::path& path, std::size_t max_line = kMaxLine,
                      StopRequested stop_requested = {});
  ~LineReader();
  LineReader(LineReader&&) noexcept;
  LineReader& operator=(LineReader&&) noexcept;

  /// The next line, valid until the next call; false at the end. Throws IoError naming file and line: for a line longer
  /// than `max_line`, gzip data that is damaged or ends early, bytes after gzip data that are no further member.
  bool next(std::string_view& line) {
    // The common case in the header: the block in memory holds a whole further line.
    const char* const begin = block_ + position_;
    const void* const newline = position_ < end_ ? __builtin_memchr(begin, '\n', end_ - position_) : nullptr;
    if (newline == nullptr) return next_across_blocks(line);
    const std::size_t length = static_cast<std::size_t>(static_cast<const char*>(newline) - begin);
    position_ += length + 1;
    return take(line, begin, length);
  }

  /// Number of the line that next() gave last, counted from 1; 0 before the first.
  std::int64_t line_number() const { return line_number_; }
  /// The path as given, "standard input" for "-".
  const std::string& name() const { return name_; }
  /// Throws IoError "[name:line] what..." about the line that next() gave last.
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... what) const {
    fail<IoError>(detail::join(name_, ':', line_number_), what...);
  }

 private:
  class Source;

  bool next_across_blocks(std::string_view& line);
  bool take(std::string_view& line, const char* begin, std::size_t length) {
    ++line_number_;
    if (length > max_line_) [[unlikely]] {
      refuse_long_line();
    }
    if (length > 0 && begin[length - 1] == '\r') --length;
    line = std::string_view(begin, length);
    return true;
  }
  [[noreturn]] void refuse_long_line() const;

  std::string name_;
  std::size_t max_line_;
  std::unique_ptr<Source> source_;
  const char* block_ = nullptr;  ///< of the source; [position_, end_) is not yet given out
  std::size_t position_ = 0;
  std::size_t end_ = 0;
  std::int64_t line_number_ = 0;
};

}  // namespace tally
