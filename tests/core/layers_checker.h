#pragma once

#include <map>
#include <string>
#include <vector>

namespace tally::layers {

/// What is wrong with one file of the tree by the house rules (DESIGN: rooms), one sentence each; empty when nothing
/// is. `path` is relative to the root of the tree ("ops/tensor/matmul.cpp"); it alone decides which rules apply.
///
/// Checked: which rooms an include may reach, quoted or angled; that a room includes its headers from the tree's root;
/// which files may name which third-party header, none of them public headers; the length of headers and sources;
/// that a header begins with #pragma once.
std::vector<std::string> violations(const std::string& path, const std::string& text);

/// A sub-room is a folder within a library room ("recsys/run"); what lies in the room itself is one, too ("recsys").
/// The sub-rooms that reach each other through includes, one sentence for each such group with the includes of one way
/// round; empty when there is no cycle. `tree`: text of each file by path.
std::vector<std::string> cycles(const std::map<std::string, std::string>& tree);

}  // namespace tally::layers
