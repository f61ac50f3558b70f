#include "tally/core/report/markup.h"

#include "tally/core/error.h"
#include "tally/core/io/json.h"

namespace tally {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// XML 1.0 allows tab, newline and carriage return below U+0020, and neither U+FFFE nor U+FFFF.
std::size_t forbidden_length(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text[0]);
  if (byte < 0x20) return byte == '\t' || byte == '\n' || byte == '\r' ? 0 : 1;
  return text.starts_with("\xEF\xBF\xBE") || text.starts_with("\xEF\xBF\xBF") ? 3 : 0;
}

void append_escaped(std::string& out, std::string_view valid) {
  for (std::size_t i = 0; i < valid.size(); ++i) {
    if (const std::size_t length = forbidden_length(valid.substr(i)); length > 0) {
      out += kReplacement;
      i += length - 1;
      continue;
    }
    switch (valid[i]) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += valid[i];
    }
  }
}

}  // namespace

std::string escape_markup(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t invalid = find_invalid_utf8(text);
    append_escaped(out, text.substr(0, invalid));
    if (invalid == std::string_view::npos) break;
    out += kReplacement;
    text.remove_prefix(invalid + 1);
  }
  return out;
}

void Markup::begin(std::string_view tag, Attributes attributes) {
  out_.append("<").append(tag);
  for (const auto& [name, value] : attributes) {
    out_.append(" ").append(name).append("=\"").append(escape_markup(value)).append("\"");
  }
}

Markup& Markup::open(std::string_view tag, Attributes attributes) {
  begin(tag, attributes);
  out_ += '>';
  open_.emplace_back(tag);
  return *this;
}

Markup& Markup::text(std::string_view text) {
  out_ += escape_markup(text);
  return *this;
}

Markup& Markup::close() {
  check<ValueError>(!open_.empty(), "markup", "needs an open element to close");
  out_.append("</").append(open_.back()).append(">");
  open_.pop_back();
  // Lines keep the files readable; within text they would be spaces.
  if (open_.empty() || open_.back() == "g" || open_.back() == "svg" || open_.back() == "body" ||
      open_.back() == "section" || open_.back() == "tbody") {
    out_ += '\n';
  }
  return *this;
}

Markup& Markup::element(std::string_view tag, Attributes attributes, std::string_view text) {
  return open(tag, attributes).text(text).close();
}

Markup& Markup::empty(std::string_view tag, Attributes attributes) {
  begin(tag, attributes);
  out_ += " />";
  return *this;
}

const std::string& Markup::finish() const {
  check<ValueError>(open_.empty(), "markup", "needs every element closed; <", open_.empty() ? "" : open_.back(),
                    "> is open");
  return out_;
}

}  // namespace tally
