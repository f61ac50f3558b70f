#include "tally/core/io/printable.h"

#include "tally/core/io/json.h"

namespace tally {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

/// How many bytes at the front are one control character.
std::size_t control_length(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text[0]);
  if (byte < 0x20 || byte == 0x7f) return 1;
  const bool second_set = byte == 0xc2 && text.size() > 1 && static_cast<unsigned char>(text[1]) < 0xa0;
  return second_set ? 2 : 0;
}

void append_hex(std::string& out, char c) {
  out += kHex[static_cast<unsigned char>(c) >> 4];
  out += kHex[static_cast<unsigned char>(c) & 15];
}

}  // namespace

std::string printable(std::string_view text, std::string_view kept) {
  std::string out;
  std::size_t invalid = find_invalid_utf8(text);
  for (std::size_t i = 0; i < text.size();) {
    if (i == invalid) {
      append_hex(out += "\\x", text[i++]);
      const std::size_t next = find_invalid_utf8(text.substr(i));
      invalid = next == std::string_view::npos ? next : i + next;
      continue;
    }
    const std::size_t length = control_length(text.substr(i));
    if (length == 0 || kept.find(text[i]) != std::string_view::npos) {
      out += text[i++];
    } else {
      append_hex(out += static_cast<unsigned char>(text[i]) < 0x20 ? "\\x" : "\\u00", text[i + length - 1]);
      i += length;
    }
  }
  return out;
}

}  // namespace tally
