#include "tally/core/io/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "tally/core/error.h"
#include "tally/core/io/reason.h"
#include "tally/core/nested_error.h"

namespace tally {
namespace {

namespace fs = std::filesystem;

/// The system frees the memory of a killed process before it closes its files: a lock that is held may be free in a
/// moment. One that is worth waiting for is free within this time.
constexpr std::chrono::milliseconds kPatience{200}, kPause{10};

constexpr std::size_t kMaxBytes = 32;  // of a lock file: a process id and a newline

/// Opens or creates the lock file. Nothing but a lock file is ever locked, as a lock file is removed at the end.
detail::FileDescriptor open_lock_file(const fs::path& directory, const fs::path& lock_file) {
  try {
    // O_NONBLOCK: a pipe of this name must be refused, not waited for.
    detail::FileDescriptor file(lock_file, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK);
    check<IoError>(file.regular_size() <= static_cast<std::int64_t>(kMaxBytes), lock_file.string(),
                   "is no lock file: it is too large");
    return file;
  } catch (const IoError& error) {
    fail<IoError>(directory.string(), "cannot be written, as ", lock_file.string(),
                  " cannot be locked: ", said_by(error));
  }
}

/// The process id that a holder wrote; 0 when there is none (yet).
pid_t holder_of(detail::FileDescriptor& file) {
  char text[kMaxBytes];
  const ssize_t count = ::pread(file.get(), text, sizeof(text), 0);
  pid_t process = 0;
  if (count > 0) std::from_chars(text, text + count, process);
  return process;
}

/// Is the locked file still the one of that name? Another holder may have removed it between our opening and locking.
bool bears_its_name(const detail::FileDescriptor& file) {
  struct stat opened {
  }, named{};
  return ::fstat(file.get(), &opened) == 0 && ::lstat(file.path().c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/// Returns whether the lock is ours now.
bool try_lock(const fs::path& directory, const detail::FileDescriptor& file) {
  while (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return false;
    check<IoError>(errno == EINTR, directory.string(), "cannot be locked for writing: ", reason_of(errno));
  }
  return true;
}

}  // namespace

DirectoryLock DirectoryLock::inside(const fs::path& directory) {
  std::error_code ignored;
  check<IoError>(fs::is_directory(directory, ignored), directory.string(), "needs to be a directory");
  return DirectoryLock(directory, directory / ".lock");
}

DirectoryLock DirectoryLock::beside(const fs::path& directory) {
  const fs::path resolved = detail::resolve_links(directory);
  std::error_code ignored;
  if (fs::is_directory(resolved, ignored)) detail::check_writable(resolved);
  return DirectoryLock(directory, detail::parent_directory(resolved) / (".lock-" + resolved.filename().string()));
}

DirectoryLock::DirectoryLock(const fs::path& directory, const fs::path& lock_file) : owner_(::getpid()) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (true) {
    detail::FileDescriptor file = open_lock_file(directory, lock_file);
    if (try_lock(directory, file)) {
      if (!bears_its_name(file)) continue;
      file_ = std::move(file);
      break;
    }
    const pid_t holder = holder_of(file);
    check<IoError>(holder != owner_, directory.string(), "is being written by this process already");
    if (std::chrono::steady_clock::now() >= deadline) {
      fail<IoError>(directory.string(), "is being written by another process",
                    holder > 0 ? detail::join(" (pid ", holder, ')') : "", "; wait for it to end, or stop it");
    }
    std::this_thread::sleep_for(kPause);
  }
  // For messages alone, so a full disk is no reason to fail.
  const std::string text = std::to_string(owner_) + '\n';
  if (::ftruncate(file_.get(), 0) == 0) (void)(::pwrite(file_.get(), text.data(), text.size(), 0) < 0);
}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
  if (this == &other) return *this;
  release();
  file_ = std::move(other.file_);
  owner_ = other.owner_;
  return *this;
}

DirectoryLock::~DirectoryLock() { release(); }

void DirectoryLock::release() noexcept {
  if (!file_.is_open() || owner_ != ::getpid()) return;
  // Removed while it is locked: whoever opened it meanwhile finds that it no longer bears its name. Unlocked before it
  // is closed, as a child of fork() may hold the open file longer.
  if (bears_its_name(file_)) ::unlink(file_.path().c_str());
  ::flock(file_.get(), LOCK_UN);
  file_ = {};
}

}  // namespace tally
