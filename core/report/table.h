#pragma once

#include <optional>
#include <string>
#include <vector>

namespace tally {

/// What stands for a figure that is not there.
constexpr const char* kNoFigure = "-";

/// A column of a table; those of figures are aligned right.
struct TableColumn {
  std::string name;
  bool is_figure = true;
};

/// A table for people (Markdown) and for programs (CSV). Rows are as long as the columns.
class Table {
 public:
  explicit Table(std::vector<TableColumn> columns) : columns_(std::move(columns)) {}

  /// Throws ShapeError for another number of cells than columns.
  void add_row(std::vector<std::string> cells);
  const std::vector<TableColumn>& columns() const { return columns_; }
  const std::vector<std::vector<std::string>>& rows() const { return rows_; }

  /// A GitHub Markdown table, columns padded to their width; in cells bars and backslashes are escaped, and
  /// control characters become spaces.
  std::string to_markdown() const;
  /// RFC 4180 with "\n" line ends: a header, fields quoted when they need it.
  std::string to_csv() const;

 private:
  std::vector<TableColumn> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// A number with so many decimals, or kNoFigure when it is absent or not finite.
std::string format_fixed(std::optional<double> value, int decimals);
/// The shortest text that reads back to the same number, for CSV; empty when absent or not finite.
std::string format_exact(std::optional<double> value);
/// "1.5 MB" with decimal units; kNoFigure when absent.
std::string format_bytes(std::optional<double> bytes);
/// "0.123", or "2e-05" below 0.001; kNoFigure when absent.
std::string format_p_value(std::optional<double> p);

}  // namespace tally
