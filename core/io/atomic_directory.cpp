#include "tally/core/io/atomic_directory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <functional>
#include <set>
#include <system_error>
#include <vector>

#include "tally/core/io/directory_entries.h"
#include "tally/core/io/file.h"
#include "tally/core/io/reason.h"
#include "tally/core/nested_error.h"

namespace tally {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kFormat = 1;

fs::path previous_path(const fs::path& destination) {
  return detail::parent_directory(destination) / (".previous-" + destination.filename().string());
}

FileChecksum checksum(detail::FileDescriptor& file) {
  FileChecksum result;
  file.regular_size();
  std::vector<char> block(std::size_t{1} << 20);
  while (const std::size_t count = file.read_some(block.data(), block.size())) {
    result.bytes += static_cast<std::int64_t>(count);
    result.crc32 = static_cast<std::uint32_t>(
        ::crc32(result.crc32, reinterpret_cast<const Bytef*>(block.data()), static_cast<uInt>(count)));
  }
  return result;
}

std::string crc_text(std::uint32_t crc) {
  std::string text(8, '0');
  for (std::size_t i = 0; i < 8; ++i) text[7 - i] = "0123456789abcdef"[(crc >> (4 * i)) & 15];
  return text;
}

/// Checksum of what a manifest says, so that a damaged one is known as well.
std::string manifest_crc(const Json& format, const Json& files, const Json& fields, const Json* later) {
  Json content = Json::object({{"format", format}, {"files", files}, {"fields", fields}});
  if (later != nullptr) content.set("later", *later);
  const std::string text = content.dump();
  return crc_text(static_cast<std::uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size())));
}

/// The manifest of a directory. Throws IoError unless it is there and sound; files are not looked at.
Json read_manifest(const fs::path& directory) {
  const fs::path path = directory / AtomicDirectory::kManifest;
  const Json manifest = read_json(path);
  const std::string where = path.string();
  try {
    const std::int64_t format = manifest.at("format").as_integer();
    check<IoError>(format == kFormat, where, "needs format ", kFormat, "; got ", format);
    for (const auto& [name, listed] : manifest.at("files").members()) {
      check<IoError>(!name.empty() && name.find('/') == std::string::npos && name != "..", where,
                     "needs plain file names; got \"", name, "\"");
      listed.at("bytes").as_integer();
      listed.at("crc32").as_string();
    }
    const Json* later = manifest.find("later");
    if (later != nullptr) {
      for (const Json& name : later->elements()) name.as_string();
    }
    check<IoError>(
        manifest.at("crc32") == Json(manifest_crc(format, manifest.at("files"), manifest.at("fields"), later)), where,
        "does not match its own checksum: it is damaged");
  } catch (const ValueError& error) {
    fail<IoError>(where, "is no manifest of files: ", said_by(error));
  } catch (const IndexError& error) {
    fail<IoError>(where, "is no manifest of files: ", said_by(error));
  }
  return manifest;
}

/// What a committed directory holds of its own; all else in it is somebody else's.
std::set<std::string, std::less<>> own_names(const fs::path& directory) {
  const Json manifest = read_manifest(directory);
  std::set<std::string, std::less<>> names{AtomicDirectory::kManifest};
  for (const auto& [name, listed] : manifest.at("files").members()) names.insert(name);
  if (const Json* later = manifest.find("later")) {
    for (const Json& name : later->elements()) names.insert(name.as_string());
  }
  return names;
}

std::vector<fs::path> entries_of(const fs::path& directory) {
  int error = 0;
  std::vector<fs::path> paths = detail::directory_entries(directory, error);
  check<IoError>(error == 0, directory.string(), "cannot be listed: ", reason_of(error));
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// What somebody else put into a directory; nothing in one that is empty or absent. Throws IoError where that cannot be
/// told from its own files.
std::vector<fs::path> foreign_entries(const fs::path& directory) {
  std::error_code ignored;
  std::vector<fs::path> entries;
  if (fs::exists(directory, ignored)) entries = entries_of(directory);
  if (entries.empty()) return {};
  check<IoError>(fs::exists(directory / AtomicDirectory::kManifest, ignored), directory.string(),
                 "cannot be replaced: it holds files, \"", entries[0].filename().string(), "\" for one, and no ",
                 AtomicDirectory::kManifest, " that names them");
  try {
    const auto listed = own_names(directory);
    std::erase_if(entries, [&](const fs::path& path) { return listed.contains(path.filename().string()); });
  } catch (const IoError& error) {
    fail<IoError>(directory.string(),
                  "cannot be replaced, as nobody can tell what in it is to be kept: ", said_by(error));
  }
  return entries;
}

bool same_file(const fs::path& a, const fs::path& b) {
  struct stat one {
  }, other{};
  return ::lstat(a.c_str(), &one) == 0 && ::lstat(b.c_str(), &other) == 0 && one.st_dev == other.st_dev &&
         one.st_ino == other.st_ino;
}

/// Moves an entry of somebody else's into `to`, unless it is there already. Returns whether it is gone from here.
bool hand_over(const fs::path& entry, const fs::path& to) {
  const fs::path place = to / entry.filename();
  if (::link(entry.c_str(), place.c_str()) == 0 || same_file(entry, place)) return ::unlink(entry.c_str()) == 0;
  return ::renameat2(AT_FDCWD, entry.c_str(), AT_FDCWD, place.c_str(), RENAME_NOREPLACE) == 0;
}

/// Removes a directory that `successor` has taken the place of, without what is somebody else's: that moves there, or
/// stays here if its name is taken. Nobody is harmed when it cannot be done: the next one tries again.
void retire(const fs::path& directory, const fs::path& successor) noexcept {
  try {
    // Without a manifest it was never committed, or is all but removed.
    std::set<std::string, std::less<>> listed;
    const bool committed = fs::exists(directory / AtomicDirectory::kManifest);
    if (committed) listed = own_names(directory);
    bool kept = false;
    for (const fs::path& entry : entries_of(directory)) {
      const std::string name = entry.filename().string();
      if (name == AtomicDirectory::kManifest) continue;
      if (committed && !listed.contains(name)) {
        kept = !hand_over(entry, successor) || kept;
      } else {
        ::unlink(entry.c_str());
      }
    }
    // Last: what is left without it counts as never committed.
    if (!kept) ::unlink((directory / AtomicDirectory::kManifest).c_str());
    ::rmdir(directory.c_str());
  } catch (const std::exception&) {
    return;
  }
}

/// Puts back a directory that was set aside when a crash came before its replacement was in place.
void recover(const fs::path& destination) {
  const fs::path previous = previous_path(destination);
  std::error_code ignored;
  if (!fs::exists(previous, ignored)) return;
  if (!fs::exists(destination, ignored)) {
    detail::rename_path(previous, destination);
  } else {
    retire(previous, destination);
  }
}

/// Gives the finished directory its name. Returns where the one that had it lies now; empty when there was none.
fs::path move_into_place(const fs::path& temporary, const fs::path& destination) {
  // A directory without a manifest is empty, or it gets no further: the system renames over empty directories only.
  std::error_code ignored;
  if (!fs::exists(destination / AtomicDirectory::kManifest, ignored)) {
    detail::rename_path(temporary, destination);
    return {};
  }
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, destination.c_str(), RENAME_EXCHANGE) == 0) return temporary;
  const fs::path previous = previous_path(destination);
  detail::rename_path(destination, previous);
  try {
    detail::rename_path(temporary, destination);
  } catch (const IoError&) {
    detail::rename_path(previous, destination);
    throw;
  }
  return previous;
}

}  // namespace

FileChecksum checksum_file(const fs::path& path) {
  detail::FileDescriptor file(path, O_RDONLY | O_NONBLOCK);
  return checksum(file);
}

AtomicDirectory::AtomicDirectory(const fs::path& destination) : destination_(detail::resolve_links(destination)) {
  std::error_code error;
  const fs::file_status status = fs::status(destination_, error);
  check<IoError>(!fs::exists(status) || fs::is_directory(status), destination_.string(),
                 "cannot be replaced by a directory: it is something else");
  // It would be renamed away, and then nobody could remove its files.
  detail::check_writable(destination_);
  remove_leftovers_of(destination_);
  foreign_entries(destination_);
  temporary_ = detail::parent_directory(destination_) / detail::temporary_name(destination_);
  check<IoError>(::mkdir(temporary_.c_str(), 0777) == 0, temporary_.string(), "cannot create: ", reason_of(errno));
}

AtomicDirectory::~AtomicDirectory() {
  if (temporary_.empty()) return;
  // Further links of files that lie in the destination may be among these, and nothing else of anybody's.
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

fs::path AtomicDirectory::file(std::string_view name) const {
  check<ValueError>(!name.empty() && name.find('/') == std::string_view::npos && name[0] != '.' && name != kManifest,
                    destination_.string(), "needs a plain file name; got \"", name, "\"");
  for (const fs::path& entry : foreign_entries(destination_)) {
    check<IoError>(entry.filename().string() != name, entry.string(),
                   "is in the way of a file of this name: the manifest beside it does not name it");
  }
  return temporary_ / name;
}

void AtomicDirectory::write(std::string_view name, std::string_view bytes) {
  detail::FileDescriptor out(file(name), O_WRONLY | O_CREAT | O_TRUNC);
  out.write_all(bytes);
  out.close();
}

void AtomicDirectory::expect_later(std::string_view name) {
  file(name);  // the same rules
  later_.emplace_back(name);
}

void AtomicDirectory::commit(const Json& fields) {
  Json files = Json::object();
  for (const fs::path& path : entries_of(temporary_)) {
    detail::FileDescriptor written(path, O_RDONLY | O_NONBLOCK);
    const FileChecksum sum = checksum(written);
    written.sync();
    files.set(path.filename().string(), Json::object({{"bytes", sum.bytes}, {"crc32", crc_text(sum.crc32)}}));
  }
  Json manifest = Json::object({{"format", kFormat}, {"files", files}, {"fields", fields}});
  const Json later(later_);
  if (!later_.empty()) manifest.set("later", later);
  manifest.set("crc32", manifest_crc(kFormat, files, fields, later_.empty() ? nullptr : &later));
  AtomicFile out(temporary_ / kManifest);
  out.write(manifest.dump(2) + "\n");
  out.commit();
  for (const fs::path& entry : foreign_entries(destination_)) {
    const std::string name = entry.filename().string();
    check<IoError>(files.find(name) == nullptr && std::find(later_.begin(), later_.end(), name) == later_.end(),
                   entry.string(), "is in the way of a file of this name: the manifest beside it does not name it");
    // What cannot be linked is handed over later.
    (void)(::link(entry.c_str(), (temporary_ / name).c_str()) != 0);
  }
  detail::sync_directory(temporary_);
  const fs::path replaced = move_into_place(temporary_, destination_);
  temporary_.clear();  // it bears another name, or is another directory
  detail::sync_directory(detail::parent_directory(destination_));
  if (!replaced.empty()) retire(replaced, destination_);
}

void remove_leftovers(const fs::path& directory) {
  for (const auto& [path, name] : detail::leftovers_in(directory)) {
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) {
      retire(path, directory / name);
    } else {
      ::unlink(path.c_str());
    }
  }
}

void remove_leftovers_of(const fs::path& given) {
  const fs::path directory = detail::resolve_links(given);
  recover(directory);
  for (const fs::path& leftover : detail::leftovers(directory)) retire(leftover, directory);
}

bool recover_directory(const fs::path& given) {
  const fs::path directory = detail::resolve_links(given);
  std::error_code ignored;
  if (!fs::exists(directory, ignored)) recover(directory);
  return fs::exists(directory / AtomicDirectory::kManifest, ignored);
}

Json verify_directory(const fs::path& given) {
  const fs::path directory = detail::resolve_links(given);
  recover_directory(directory);  // what is missing is named below
  const Json manifest = read_manifest(directory);
  for (const auto& [name, listed] : manifest.at("files").members()) {
    const FileChecksum found = checksum_file(directory / name);
    const std::int64_t bytes = listed.at("bytes").as_integer();
    check<IoError>(found.bytes == bytes, (directory / name).string(), "needs ", bytes,
                   " bytes as the manifest says; got ", found.bytes);
    const std::string& crc = listed.at("crc32").as_string();
    check<IoError>(crc_text(found.crc32) == crc, (directory / name).string(), "needs checksum ", crc,
                   " as the manifest says; got ", crc_text(found.crc32), ": it is damaged");
  }
  return manifest.at("fields");
}

}  // namespace tally
