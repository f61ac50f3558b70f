#include "tally/nn/module.h"

namespace tally::nn {

bool matches(std::string_view pattern, std::string_view path) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == path;
  const std::string_view head = pattern.substr(0, star), rest = pattern.substr(star + 1);
  if (!path.starts_with(head)) return false;
  for (std::size_t i = head.size(); i <= path.size(); ++i) {
    if (matches(rest, path.substr(i))) return true;
  }
  return false;
}

}  // namespace tally::nn
