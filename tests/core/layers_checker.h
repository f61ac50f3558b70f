#pragma once

#include <string>
#include <vector>

namespace tally::layers {

/// What is wrong with one file of the tree by the house rules (DESIGN: rooms), one sentence each; empty when nothing
/// is. `path` is relative to the root of the tree ("ops/matmul.cpp"); it alone decides which rules apply.
///
/// Checked: which rooms an include may reach, quoted or angled; that a room includes its headers from the tree's root;
/// which files may name which third-party header, none of them public headers; the length of headers and sources;
/// that a header begins with #pragma once.
std::vector<std::string> violations(const std::string& path, const std::string& text);

}  // namespace tally::layers
