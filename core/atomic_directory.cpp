#include "tally/core/atomic_directory.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <vector>

#include "tally/core/file.h"

namespace tally {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kFormat = 1;

fs::path previous_path(const fs::path& destination) {
  return detail::parent_directory(destination) / (".previous-" + destination.filename().string());
}

/// "checkpoint/" names the same directory as "checkpoint".
fs::path without_trailing_slash(fs::path path) { return path.has_filename() ? path : path.parent_path(); }

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

/// Puts back a directory that was set aside when a crash came before its replacement was in place.
void recover(const fs::path& destination) {
  const fs::path previous = previous_path(destination);
  std::error_code ignored;
  if (!fs::exists(previous, ignored)) return;
  if (!fs::exists(destination, ignored)) {
    detail::rename_path(previous, destination);
  } else {
    fs::remove_all(previous, ignored);
  }
}

void move_into_place(const fs::path& temporary, const fs::path& destination) {
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, destination.c_str(), RENAME_EXCHANGE) == 0) {
    return;  // The old directory bears the temporary's name now.
  }
  std::error_code ignored;
  if (fs::exists(destination, ignored)) {
    const fs::path previous = previous_path(destination);
    detail::rename_path(destination, previous);
    try {
      detail::rename_path(temporary, destination);
    } catch (const IoError&) {
      detail::rename_path(previous, destination);
      throw;
    }
    fs::remove_all(previous, ignored);
  } else {
    detail::rename_path(temporary, destination);
  }
}

std::string crc_text(std::uint32_t crc) {
  std::string text(8, '0');
  for (std::size_t i = 0; i < 8; ++i) text[7 - i] = "0123456789abcdef"[(crc >> (4 * i)) & 15];
  return text;
}

/// Checksum of what a manifest says, so that a damaged one is known as well.
std::string manifest_crc(const Json& format, const Json& files, const Json& fields) {
  const std::string text = Json::object({{"format", format}, {"files", files}, {"fields", fields}}).dump();
  return crc_text(static_cast<std::uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size())));
}

}  // namespace

FileChecksum checksum_file(const fs::path& path) {
  detail::FileDescriptor file(path, O_RDONLY | O_NONBLOCK);
  return checksum(file);
}

AtomicDirectory::AtomicDirectory(fs::path destination) : destination_(without_trailing_slash(std::move(destination))) {
  check<IoError>(destination_.has_filename(), destination_.string(), "needs the name of a directory");
  std::error_code error;
  const fs::file_status status = fs::symlink_status(destination_, error);
  check<IoError>(!fs::exists(status) || fs::is_directory(status), destination_.string(),
                 "cannot be replaced by a directory: it is something else");
  detail::remove_leftovers(destination_);
  recover(destination_);
  temporary_ = detail::parent_directory(destination_) / detail::temporary_name(destination_);
  check<IoError>(::mkdir(temporary_.c_str(), 0777) == 0, temporary_.string(),
                 "cannot create: ", std::generic_category().message(errno));
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

fs::path AtomicDirectory::file(std::string_view name) const {
  check<ValueError>(!name.empty() && name.find('/') == std::string_view::npos && name[0] != '.' && name != kManifest,
                    destination_.string(), "needs a plain file name; got \"", name, "\"");
  return temporary_ / name;
}

void AtomicDirectory::write(std::string_view name, std::string_view bytes) {
  detail::FileDescriptor out(file(name), O_WRONLY | O_CREAT | O_TRUNC);
  out.write_all(bytes);
  out.close();
}

void AtomicDirectory::commit(const Json& fields) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(temporary_)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  Json files = Json::object();
  for (const fs::path& path : paths) {
    detail::FileDescriptor written(path, O_RDONLY | O_NONBLOCK);
    const FileChecksum sum = checksum(written);
    written.sync();
    files.set(path.filename().string(), Json::object({{"bytes", sum.bytes}, {"crc32", crc_text(sum.crc32)}}));
  }
  const Json manifest = Json::object(
      {{"format", kFormat}, {"files", files}, {"fields", fields}, {"crc32", manifest_crc(kFormat, files, fields)}});
  detail::FileDescriptor out(temporary_ / kManifest, O_WRONLY | O_CREAT | O_EXCL);
  out.write_all(manifest.dump(2) + "\n");
  out.sync();
  out.close();
  detail::sync_directory(temporary_);
  move_into_place(temporary_, destination_);
  detail::sync_directory(detail::parent_directory(destination_));
  // After an exchange this is the old directory; losing the race to remove it harms nobody.
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
  temporary_.clear();
}

bool directory_committed(const fs::path& given) {
  const fs::path directory = without_trailing_slash(given);
  std::error_code ignored;
  if (!fs::exists(directory, ignored)) recover(directory);
  return fs::exists(directory / AtomicDirectory::kManifest, ignored);
}

Json verify_directory(const fs::path& given) {
  const fs::path directory = without_trailing_slash(given);
  directory_committed(directory);  // takes back one that was set aside; what is missing is named below
  const fs::path manifest_path = directory / AtomicDirectory::kManifest;
  const Json manifest = read_json(manifest_path);
  const std::string where = manifest_path.string();
  try {
    const std::int64_t format = manifest.at("format").as_integer();
    check<IoError>(format == kFormat, where, "needs format ", kFormat, "; got ", format);
    for (const auto& [name, listed] : manifest.at("files").members()) {
      check<IoError>(!name.empty() && name.find('/') == std::string::npos && name != "..", where,
                     "needs plain file names; got \"", name, "\"");
      const FileChecksum found = checksum_file(directory / name);
      const std::int64_t bytes = listed.at("bytes").as_integer();
      check<IoError>(found.bytes == bytes, (directory / name).string(), "needs ", bytes,
                     " bytes as the manifest says; got ", found.bytes);
      const std::string& crc = listed.at("crc32").as_string();
      check<IoError>(crc_text(found.crc32) == crc, (directory / name).string(), "needs checksum ", crc,
                     " as the manifest says; got ", crc_text(found.crc32), ": it is damaged");
    }
    const Json& fields = manifest.at("fields");
    check<IoError>(manifest.at("crc32") == Json(manifest_crc(format, manifest.at("files"), fields)), where,
                   "does not match its own checksum: it is damaged");
    return fields;
  } catch (const ValueError& error) {
    fail<IoError>(where, "is no manifest of files: ", error.what());
  } catch (const IndexError& error) {
    fail<IoError>(where, "is no manifest of files: ", error.what());
  }
}

}  // namespace tally
