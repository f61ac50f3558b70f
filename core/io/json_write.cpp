// Json to text, and the UTF-8 rules that writing needs.

#include <array>
#include <charconv>
#include <cmath>

#include "tally/core/io/json.h"

namespace tally {
namespace {

/// Length of the valid UTF-8 sequence at the start of `text`, or 0. Overlong forms, surrogates and values beyond
/// U+10FFFF are not valid (Unicode 15, table 3-7).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = first == 0xED ? 0x9F : 0xBF;
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

void append_number(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "\"NaN\"";
  } else if (std::isinf(value)) {
    out += value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  } else {
    std::array<char, 32> text{};
    const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    const std::string_view written(text.data(), static_cast<std::size_t>(end - text.data()));
    out += written;
    // 1.0 stays a number when it is read back.
    if (written.find_first_of(".e") == std::string_view::npos) out += ".0";
  }
}

void append_line(std::string& out, int indent, int level) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(level), ' ');
}

}  // namespace

std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  while (!text.empty()) {
    const char c = text.front();
    std::size_t length = utf8_length(text);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (length == 0) {
          out += "\xEF\xBF\xBD";
          length = 1;
        } else if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[static_cast<unsigned char>(c) >> 4];
          out += kHex[static_cast<unsigned char>(c) & 15];
        } else {
          out += text.substr(0, length);
        }
    }
    text.remove_prefix(length);
  }
  out += '"';
}

std::string Json::dump(int indent) const {
  std::string out;
  write(out, indent, 0);
  return out;
}

void Json::write(std::string& out, int indent, int level) const {
  switch (kind()) {
    case Kind::null:
      out += "null";
      return;
    case Kind::boolean:
      out += as_bool() ? "true" : "false";
      return;
    case Kind::integer:
      out += std::to_string(as_integer());
      return;
    case Kind::number:
      append_number(out, as_double());
      return;
    case Kind::string:
      append_json_string(out, as_string());
      return;
    case Kind::array:
    case Kind::object:
      break;
  }
  const bool is_array = kind() == Kind::array;
  out += is_array ? '[' : '{';
  const auto begin_element = [&](bool first) {
    if (!first) out += ',';
    append_line(out, indent, level + 1);
  };
  if (is_array) {
    for (const Json& element : elements()) {
      begin_element(&element == elements().data());
      element.write(out, indent, level + 1);
    }
  } else {
    for (const JsonMember& member : members()) {
      begin_element(&member == members().data());
      append_json_string(out, member.name);
      out += indent < 0 ? ":" : ": ";
      member.value.write(out, indent, level + 1);
    }
  }
  if (size() > 0) append_line(out, indent, level);
  out += is_array ? ']' : '}';
}

}  // namespace tally
