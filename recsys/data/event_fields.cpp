#include "tally/recsys/data/event_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "tally/core/io/json.h"
#include "tally/core/io/line_reader.h"
#include "tally/core/io/printable.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kNoNumber = "that is a finite number";

/// The number that the whole field is, or nothing. `Number` is integral or floating.
template <class Number>
std::optional<Number> parse(std::string_view field) {
  Number value{};
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size()) return std::nullopt;
  return value;
}

[[noreturn]] void refuse_number(const DelimitedRows& rows, std::size_t column) {
  rows.refuse(column, "needs a finite number as ", rows.columns()[column], "; got '", beginning_of(rows.field(column)),
              "'");
}

/// The digits of a decimal number that count, without sign, point, exponent and zeros at either end.
std::string significant_digits(std::string_view number) {
  std::string digits;
  for (const char c : number.substr(0, number.find_first_of("eE"))) {
    if (c >= '0' && c <= '9' && !(c == '0' && digits.empty())) digits += c;
  }
  digits.erase(digits.find_last_not_of('0') + 1);
  return digits;
}

/// Whether a double holds all digits of the number that it was read from: written with as many digits it is the same
/// number again. So it is for whatever a program wrote out of doubles.
bool holds_digits(double value, std::string_view number) {
  constexpr std::size_t kLongest = 767;  // digits of a double written in full
  const std::string digits = significant_digits(number);
  if (static_cast<int>(digits.size()) <= std::numeric_limits<double>::digits10) return true;
  return digits.size() <= kLongest && significant_digits(fmt::format("{:.{}e}", value, digits.size() - 1)) == digits;
}

}  // namespace

std::string_view fault_of_id(std::string_view id) {
  const bool plain = std::all_of(id.begin(), id.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (plain) return "";
  if (find_invalid_utf8(id) != std::string_view::npos) return "in UTF-8";
  if (printable(id) != id) return "without control characters, tabs and line breaks";
  if (without_byte_order_mark(id).size() != id.size()) return "without a byte order mark";
  return "";
}

std::string_view read_time(std::string_view text, double& time) {
  constexpr std::int64_t kExact = std::int64_t{1} << 53;
  const std::optional<std::int64_t> whole = parse<std::int64_t>(text);
  if (whole && *whole >= -kExact && *whole <= kExact) {
    time = static_cast<double>(*whole);
    return "";
  }
  const std::optional<double> value = parse<double>(text);
  if (!value || !std::isfinite(*value)) return kNoNumber;
  const bool held = holds_digits(*value, text);
  const double magnitude = std::abs(*value);
  if (magnitude > static_cast<double>(kExact) || (magnitude == static_cast<double>(kExact) && !held)) {
    return "of at most 2^53, beyond which times are not told apart";
  }
  if (!held) return "of no more digits than a double holds, beyond which times are not told apart";
  time = *value;
  return "";
}

std::string beginning_of(std::string_view text) {
  std::size_t shown = 200;
  if (text.size() <= shown) return printable(text);
  while ((static_cast<unsigned char>(text[shown]) & 0xC0) == 0x80 && shown > 196) --shown;  // within a character
  return printable(text.substr(0, shown)) + "...";
}

std::string_view read_id(const DelimitedRows& rows, std::size_t column) {
  const std::string_view field = rows.field(column);
  const std::string& name = rows.columns()[column];
  if (field.empty()) rows.refuse(column, "needs a ", name, "; got an empty field");
  const std::string_view fault = fault_of_id(field);
  if (!fault.empty()) rows.refuse(column, "needs a ", name, ' ', fault, "; got '", beginning_of(field), "'");
  return field;
}

double read_rating(const DelimitedRows& rows, std::size_t column) {
  const std::optional<double> value = parse<double>(rows.field(column));
  if (!value || !std::isfinite(static_cast<float>(*value))) refuse_number(rows, column);
  return *value;
}

double read_time(const DelimitedRows& rows, std::size_t column) {
  double time = 0;
  const std::string_view fault = read_time(rows.field(column), time);
  if (fault == kNoNumber) refuse_number(rows, column);
  if (!fault.empty()) rows.refuse(column, "needs a ", rows.columns()[column], ' ', fault, "; got ", rows.field(column));
  return time;
}

}  // namespace tally::recsys
