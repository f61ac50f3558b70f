#include "tally/core/report/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tally/core/error.h"

namespace tally {
namespace {

bool has_value(std::optional<double> value) { return value.has_value() && std::isfinite(*value); }

std::string markdown_cell(const std::string& text) {
  std::string cell;
  for (const char c : text) {
    if (c == '\r') continue;
    // A backslash before a bar would be taken for the bar's own escape.
    if (c == '|' || c == '\\') cell += '\\';
    cell += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return cell;
}

/// Characters, not bytes: continuation bytes of UTF-8 do not count.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string field = "\"";
  for (const char c : text) field += c == '"' ? "\"\"" : std::string(1, c);
  return field + '"';
}

}  // namespace

void Table::add_row(std::vector<std::string> cells) {
  check<ShapeError>(cells.size() == columns_.size(), "table", "needs ", columns_.size(), " cells in a row; got ",
                    cells.size());
  rows_.push_back(std::move(cells));
}

std::string Table::to_markdown() const {
  constexpr std::size_t kLeast = 3;  // dashes of the rule below the header
  std::vector<std::size_t> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    std::size_t width = std::max(kLeast, width_of(markdown_cell(columns_[c].name)));
    for (const auto& row : rows_) width = std::max(width, width_of(markdown_cell(row[c])));
    widths.push_back(width);
  }
  std::string text;
  const auto add_cell = [&](std::size_t c, const std::string& raw) {
    const std::string cell = markdown_cell(raw);
    const std::string padding(widths[c] - width_of(cell), ' ');
    text += columns_[c].is_figure ? "| " + padding + cell + ' ' : "| " + cell + padding + ' ';
  };
  for (std::size_t c = 0; c < columns_.size(); ++c) add_cell(c, columns_[c].name);
  text += "|\n";
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    text += columns_[c].is_figure ? "| " + std::string(widths[c] - 1, '-') + ": "
                                  : "| " + std::string(widths[c], '-') + ' ';
  }
  text += "|\n";
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < row.size(); ++c) add_cell(c, row[c]);
    text += "|\n";
  }
  return text;
}

std::string Table::to_csv() const {
  std::string text;
  for (std::size_t c = 0; c < columns_.size(); ++c) text += (c == 0 ? "" : ",") + csv_field(columns_[c].name);
  text += '\n';
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < row.size(); ++c) text += (c == 0 ? "" : ",") + csv_field(row[c]);
    text += '\n';
  }
  return text;
}

std::string format_fixed(std::optional<double> value, int decimals) {
  if (!has_value(value)) return kNoFigure;
  const std::string text = fmt::format("{:.{}f}", *value, decimals);
  // A negative number that rounds to zero is zero.
  return text.find_first_of("123456789") == std::string::npos && text[0] == '-' ? text.substr(1) : text;
}

std::string format_exact(std::optional<double> value) { return has_value(value) ? fmt::format("{}", *value) : ""; }

std::string format_bytes(std::optional<double> bytes) {
  if (!has_value(bytes)) return kNoFigure;
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  double value = *bytes;
  std::size_t unit = 0;
  while (std::abs(value) >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 || value >= 100 ? 0 : 1, kUnits[unit]);
}

std::string format_p_value(std::optional<double> p) {
  if (!has_value(p)) return kNoFigure;
  return *p < 0.001 ? fmt::format("{:.1g}", *p) : fmt::format("{:.3f}", *p);
}

}  // namespace tally
