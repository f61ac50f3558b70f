#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/io/line_reader.h"

namespace tally::recsys {

/// How a text of rows and columns is written.
struct DelimitedFormat {
  std::string separator = "\t";           ///< one or more bytes
  bool quoted = false;                    ///< fields may be quoted as in RFC 4180: "a, ""b""", line breaks included
  std::vector<std::string> columns = {};  ///< names of the columns; empty: the first line names them
};

/// Comma-separated with quotes.
DelimitedFormat csv_format();

/// One row is malformed. Reading may go on with the next row.
class RowError : public IoError {
 public:
  using IoError::IoError;
};

/// Rows of a delimited text, plain or gzip'd, one at a time. Names in a header may carry a type (`user_id:token`),
/// which is cut off. Blank lines are allowed at the end only.
class DelimitedRows {
 public:
  /// Throws IoError when the file cannot be read, or has neither a header nor given columns, or names a column twice;
  /// Stopped as LineReader.
  explicit DelimitedRows(const std::filesystem::path& path, DelimitedFormat format = {},
                         StopRequested stop_requested = {});
  /// In the first of several forms that fits the first line: one without given columns fits a line of names that
  /// `is_header` accepts, one with given columns a line of as many fields. When none fits, in the first with given
  /// columns, or else in the last, and so to the errors of that form.
  DelimitedRows(const std::filesystem::path& path, std::span<const DelimitedFormat> forms,
                const std::function<bool(const std::vector<std::string>& names)>& is_header);

  /// Position of the column of this name. Throws IoError that lists the columns there are.
  std::size_t column(std::string_view name) const;
  bool has_column(std::string_view name) const;
  const std::vector<std::string>& columns() const { return format_.columns; }

  /// Reads the next row; false at the end. Throws RowError for a row with too few or too many fields, a misplaced quote
  /// or a blank line, and IoError for what ends the reading (damaged gzip data). After such a row of several lines the
  /// next one is the line behind its first: a stray quote may be what joined them.
  bool next();
  /// A field of the current row; valid until next().
  std::string_view field(std::size_t column) const { return fields_[column]; }
  /// "path:line" of the current row.
  std::string where() const;
  const std::string& name() const { return reader_.name(); }
  /// Throws RowError "[path:line:byte] parts...", pointing at a field of the current row.
  template <class... Parts>
  [[noreturn]] void refuse(std::size_t column, const Parts&... parts) const {
    fail<RowError>(detail::join(where(), ':', starts_[column] + 1), parts...);
  }

 private:
  bool next_line();
  bool read_line();
  bool read_record();
  void split_line();
  void split_plain();
  void split_quoted();
  void take_back_lines();
  [[noreturn]] void refuse_quote(std::size_t at, std::string_view what);
  void read_header();
  void check_separator() const;
  void check_columns() const;
  bool fits_line(const std::function<bool(const std::vector<std::string>& names)>& is_header);
  std::vector<std::string> names_in_line() const;
  std::string listed() const;  // names of the columns

  LineReader reader_;
  DelimitedFormat format_;
  bool has_header_;
  std::string_view line_;
  std::int64_t line_at_ = 0;      // its number
  std::string again_;             // lines that come once more, before those of the reader,
  std::size_t again_at_ = 0;      // from here on
  std::int64_t line_number_ = 0;  // where the current row begins
  std::int64_t blank_line_ = 0;   // the first of the blank lines just passed, or 0
  bool line_held_ = false;        // line_ has been read but not been used
  std::vector<std::string_view> fields_;
  std::vector<std::size_t> starts_;  // of the fields, in bytes from the start of the row
  std::string record_;               // the current row when it is quoted, which may span lines
  std::string unquoted_;             // its fields one after the other
};

}  // namespace tally::recsys
