#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tally {

/// Text for XML and HTML: `&`, `<`, `>` and quotes as entities; bytes that are not UTF-8 and characters that XML
/// forbids become U+FFFD.
std::string escape_markup(std::string_view text);

/// Writes elements of XML, SVG and XHTML. Text and attribute values are escaped, and every element that is opened must
/// be closed: what comes out is well-formed.
///
///     Markup page;
///     page.open("p", {{"class", "note"}}).text("a < b").close();
class Markup {
 public:
  using Attributes = std::initializer_list<std::pair<std::string_view, std::string>>;

  Markup& open(std::string_view tag, Attributes attributes = {});
  Markup& text(std::string_view text);
  Markup& close();
  /// An element with text alone.
  Markup& element(std::string_view tag, Attributes attributes, std::string_view text);
  Markup& element(std::string_view tag, std::string_view text) { return element(tag, {}, text); }
  /// An element without content, `<br />`: in HTML only for the tags that never have any.
  Markup& empty(std::string_view tag, Attributes attributes = {});
  /// Everything written. Throws ValueError when an element is still open.
  const std::string& finish() const;

 private:
  void begin(std::string_view tag, Attributes attributes);

  std::string out_;
  std::vector<std::string> open_;
};

}  // namespace tally
