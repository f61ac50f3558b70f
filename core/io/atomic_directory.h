#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tally/core/io/json.h"

namespace tally {

/// A directory of files that appears whole or not at all: a checkpoint. Files are written into a temporary sibling
/// (`.tmp-NAME-...`), synced, listed with size and checksum in a manifest that is written last, and the directory is
/// renamed to its name. A symbolic link at the destination is followed: the directory that it names is replaced.
///
/// A directory that has the name already is exchanged with the new one in one step; then what its manifest names is
/// removed. Where the file system can't exchange, the old one is set aside as `.previous-NAME` for a moment;
/// verify_directory() takes it back should a crash have come between. Leftovers of killed processes are removed by the
/// next AtomicDirectory of the same name.
///
/// What somebody else put into the directory, that is, what no manifest names, stays there. Files are in the new
/// directory before it gets its name (as further links to the same file); a sub-directory, or a file on a file system
/// without links, is moved right after. A kill in between leaves it in the temporary, and the next AtomicDirectory of
/// the same name moves it. So nothing is ever deleted that a manifest does not name, and a directory without a sound
/// manifest is replaced only if it is empty.
///
/// One writer at a time: whoever may have company holds a DirectoryLock::beside().
class AtomicDirectory {
 public:
  static constexpr const char* kManifest = "manifest.json";

  /// Throws IoError when the parent directory cannot be written, or when the name is taken by something else: no
  /// directory, or one that holds files and no sound manifest.
  explicit AtomicDirectory(const std::filesystem::path& destination);
  /// Without a commit, removes what was written.
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  void write(std::string_view name, std::string_view bytes);
  /// Where to write a file of this name by other means (save_safetensors, say) before commit(). Plain names only.
  /// Throws IoError when the directory has somebody else's file of this name.
  std::filesystem::path file(std::string_view name) const;
  /// Names a file that is written into the directory after commit(), if at all: the manifest names it, without size and
  /// checksum, so it goes when the directory is replaced.
  void expect_later(std::string_view name);
  /// Checksums and syncs every file, writes the manifest with `fields` in it, and renames. Call it once, at last.
  void commit(const Json& fields = Json::object());

 private:
  std::filesystem::path destination_;
  std::filesystem::path temporary_;
  std::vector<std::string> later_;
};

/// Takes back a directory of this name (or that it links to) which was set aside when a crash came. Returns whether
/// there is a committed one.
bool recover_directory(const std::filesystem::path& directory);

/// Removes what killed processes left of writes (AtomicFile, AtomicDirectory) into a directory, whatever the name; what
/// is somebody else's, and what a running process writes, stays. For whoever holds the directory's lock. What cannot be
/// removed stays as well.
void remove_leftovers(const std::filesystem::path& directory);
/// The same beside a directory, for those of its name: of writes of the whole of it.
void remove_leftovers_of(const std::filesystem::path& directory);

/// Compares every file of a committed directory with its manifest and returns the fields that were given to commit().
/// Throws IoError naming the file that is missing, has another size or another checksum, the manifest included.
Json verify_directory(const std::filesystem::path& directory);

/// zlib's CRC-32 of a whole file, read in blocks, and its size. Not cryptographic: it finds damage, not intent.
struct FileChecksum {
  std::int64_t bytes = 0;
  std::uint32_t crc32 = 0;
};
FileChecksum checksum_file(const std::filesystem::path& path);

}  // namespace tally
