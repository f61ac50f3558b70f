#include "tally/core/io/directory_entries.h"

#include <dirent.h>

#include <cerrno>
#include <memory>
#include <string_view>

namespace tally::detail {

std::vector<std::filesystem::path> directory_entries(const std::filesystem::path& directory, int& reason) {
  struct Close {
    void operator()(DIR* open) const { ::closedir(open); }
  };
  std::vector<std::filesystem::path> entries;
  const std::unique_ptr<DIR, Close> open(::opendir(directory.c_str()));
  reason = open == nullptr ? errno : 0;
  while (reason == 0) {
    errno = 0;
    const dirent* const entry = ::readdir(open.get());
    reason = errno;
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") entries.push_back(directory / name);
  }
  return entries;
}

}  // namespace tally::detail
