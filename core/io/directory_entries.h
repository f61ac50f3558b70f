#pragma once

#include <filesystem>
#include <vector>

namespace tally::detail {

/// What lies in a directory, in no order. `reason` becomes the `errno` of one that cannot be listed, else 0. Unlike the
/// iterators of std::filesystem, which end the program where memory ends, this throws std::bad_alloc.
std::vector<std::filesystem::path> directory_entries(const std::filesystem::path& directory, int& reason);

}  // namespace tally::detail
