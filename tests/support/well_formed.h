#pragma once

#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace tally::test {

/// What keeps a text from being well-formed XML of one root element (a doctype before it is skipped; no comments, CDATA
/// or namespaces' rules); empty when it is.
inline std::string malformed(std::string_view text) {
  std::vector<std::string> open;
  std::size_t roots = 0, at = 0;
  const auto is_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == ':'; };
  const auto entity_end = [&](std::size_t ampersand) {
    const std::size_t end = text.find(';', ampersand);
    if (end == std::string_view::npos) return end;
    const std::string_view name = text.substr(ampersand + 1, end - ampersand - 1);
    static const std::set<std::string_view> kNames{"amp", "lt", "gt", "quot", "apos"};
    const bool known = kNames.count(name) == 1 || (name.size() > 1 && name[0] == '#');
    return known ? end : std::string_view::npos;
  };
  const auto where = [&](const char* what) { return std::string(what) + " at byte " + std::to_string(at); };
  if (text.starts_with("<!DOCTYPE")) at = text.find('>') + 1;
  while (at < text.size()) {
    if (text[at] == '&') {
      const std::size_t end = entity_end(at);
      if (end == std::string_view::npos) return where("a lone ampersand");
      at = end + 1;
    } else if (text[at] != '<') {
      if (open.empty() && !std::isspace(static_cast<unsigned char>(text[at]))) return where("text outside the root");
      ++at;
    } else if (text.substr(at).starts_with("</")) {
      const std::size_t end = text.find('>', at);
      if (end == std::string_view::npos || open.empty() || open.back() != text.substr(at + 2, end - at - 2))
        return where("a wrong end tag");
      open.pop_back();
      at = end + 1;
    } else {
      std::size_t end = ++at;
      while (end < text.size() && is_name(text[end])) ++end;
      const std::string tag(text.substr(at, end - at));
      if (tag.empty()) return where("no name of a tag");
      if (open.empty() && ++roots > 1) return where("a second root");
      at = end;
      std::set<std::string> names;
      while (at < text.size() && text[at] == ' ' && text.substr(at, 3) != " />") {
        end = ++at;
        while (end < text.size() && is_name(text[end])) ++end;
        if (!names.insert(std::string(text.substr(at, end - at))).second) return where("an attribute twice");
        if (text.substr(end, 2) != "=\"") return where("no quoted value");
        const std::size_t close = text.find('"', end + 2);
        if (close == std::string_view::npos) return where("an open quote");
        for (std::size_t i = end + 2; i < close; ++i) {
          if (text[i] == '<' || (text[i] == '&' && entity_end(i) > close)) return where("a bare < or & in a value");
        }
        at = close + 1;
      }
      if (text.substr(at, 3) == " />") {
        at += 3;
      } else if (text.substr(at, 1) == ">") {
        open.push_back(tag);
        ++at;
      } else {
        return where("a tag that does not end");
      }
    }
  }
  if (!open.empty()) return "<" + open.back() + "> stays open";
  return roots == 1 ? "" : "no root";
}

}  // namespace tally::test
