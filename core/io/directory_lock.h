#pragma once

#include <sys/types.h>

#include <filesystem>

#include "tally/core/io/file.h"

namespace tally {

/// The right to write a directory, of one holder at a time: two processes that write one directory lose each other's
/// work. It ends with the object, and with the process however that ends; the lock file of a killed process is no
/// obstacle. A directory has one lock, by whatever name it is given (relative, with a slash at its end, through
/// symbolic links).
///
///     const DirectoryLock lock = DirectoryLock::inside(run);    // a directory that stays: run/.lock
///     const DirectoryLock lock = DirectoryLock::beside(state);  // one replaced whole (AtomicDirectory): .lock-state
///
/// Use one of the two for a directory, always the same. Readers need none. Both throw IoError at once, naming the
/// directory, when somebody else holds the lock (the message has the process's id), this process included, and when
/// the lock file cannot be created. Not for network file systems.
class DirectoryLock {
 public:
  /// Of an existing directory, by a file within it.
  static DirectoryLock inside(const std::filesystem::path& directory);
  /// Of a directory that may not exist yet, by a file in its parent.
  static DirectoryLock beside(const std::filesystem::path& directory);

  DirectoryLock(DirectoryLock&& other) noexcept = default;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;
  ~DirectoryLock();

 private:
  DirectoryLock(const std::filesystem::path& directory, const std::filesystem::path& lock_file);
  void release() noexcept;

  detail::FileDescriptor file_;
  pid_t owner_ = 0;  ///< a child of fork() shares the open file, but the lock is not its own
};

}  // namespace tally
