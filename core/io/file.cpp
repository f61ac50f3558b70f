#include "tally/core/io/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include "tally/core/error.h"
#include "tally/core/io/directory_entries.h"
#include "tally/core/io/reason.h"

namespace tally {
namespace {

[[noreturn]] void fail_with(const std::filesystem::path& path, std::string_view action, int error) {
  fail<IoError>(path.string(), action, ": ", reason_of(error));
}

/// Calls a system function again while it was interrupted.
template <class Call>
auto retry(Call&& call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "something else";
}

/// Tells this process from an earlier one with the same id: in containers ids repeat from start to start.
std::uint64_t process_token() {
  static const auto token = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  return token;
}

constexpr std::string_view kTemporary = ".tmp-";

struct TemporaryOwner {
  pid_t process = 0;
  std::uint64_t token = 0;
};

/// Reads `PID-TOKEN-COUNT`; nothing for any other text.
std::optional<TemporaryOwner> read_owner(std::string_view text) {
  TemporaryOwner owner;
  unsigned count = 0;
  const auto read_number = [&](auto& number, char separator) {
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<std::size_t>(rest - text.data()));
    if (separator == '\0') return text.empty();
    if (!text.starts_with(separator)) return false;
    text.remove_prefix(1);
    return true;
  };
  if (!read_number(owner.process, '-') || !read_number(owner.token, '-') || !read_number(count, '\0')) return {};
  if (owner.process <= 0) return {};
  return owner;
}

bool is_gone(const TemporaryOwner& owner) {
  if (owner.process == ::getpid()) return owner.token != process_token();
  return ::kill(owner.process, 0) != 0 && errno == ESRCH;
}

}  // namespace

void ignore_write_signals() {
  ::signal(SIGXFSZ, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
}

void hold_standard_descriptors() {
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(standard, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one. Open for what nobody does with it, it gives EBADF as before.
    (void)::open("/dev/null", standard == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

bool is_there(const std::filesystem::path& path) {
  std::error_code none;
  return std::filesystem::exists(path, none);
}

namespace detail {

FileDescriptor::FileDescriptor(std::filesystem::path path, int flags, unsigned mode) : path_(std::move(path)) {
  descriptor_ = retry([&] { return ::open(path_.c_str(), flags | O_CLOEXEC, mode); });
  if (descriptor_ < 0) fail_with(path_, "cannot open", errno);
}

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (is_open()) ::close(descriptor_);
}

std::int64_t FileDescriptor::regular_size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail_with(path_, "cannot examine", errno);
  check<IoError>(S_ISREG(status.st_mode), path_.string(), "needs a regular file; got ", kind_of(status.st_mode));
  return status.st_size;
}

std::size_t FileDescriptor::read_some(void* out, std::size_t size) {
  const ssize_t count = retry([&] { return ::read(descriptor_, out, size); });
  if (count < 0) fail_with(path_, "cannot read", errno);
  return static_cast<std::size_t>(count);
}

void FileDescriptor::read_exactly(void* out, std::size_t size, std::int64_t offset) {
  char* to = static_cast<char*>(out);
  while (size > 0) {
    const ssize_t count = retry([&] { return ::pread(descriptor_, to, size, offset); });
    if (count < 0) fail_with(path_, "cannot read", errno);
    check<IoError>(count > 0, path_.string(), "ends at offset ", offset, " where ", size, " more bytes are needed");
    to += count;
    offset += count;
    size -= static_cast<std::size_t>(count);
  }
}

void FileDescriptor::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = retry([&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    if (count < 0) fail_with(path_, "cannot write", errno);
    check<IoError>(count > 0, path_.string(), "cannot write: the system took no bytes");
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void FileDescriptor::sync() {
  // A failed fsync is not retried: the kernel may have dropped the pages, so a second call could report success
  // wrongly.
  if (::fsync(descriptor_) != 0 && errno != EINVAL && errno != EROFS) fail_with(path_, "cannot sync", errno);
}

void FileDescriptor::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  // After EINTR the descriptor is closed on Linux; a second close could hit another thread's file.
  if (::close(descriptor) != 0 && errno != EINTR) fail_with(path_, "cannot close", errno);
}

void sync_directory(const std::filesystem::path& directory) {
  FileDescriptor(directory, O_RDONLY | O_DIRECTORY).sync();
}

std::filesystem::path parent_directory(const std::filesystem::path& path) {
  std::filesystem::path parent = path.parent_path();
  return parent.empty() ? std::filesystem::path(".") : parent;
}

void check_writable(const std::filesystem::path& directory) {
  if (::faccessat(AT_FDCWD, directory.c_str(), W_OK | X_OK, AT_EACCESS) != 0 && errno != ENOENT)
    fail_with(directory, "cannot be written", errno);
}

std::filesystem::path resolve_links(const std::filesystem::path& path) {
  constexpr int kMaxLinks = 40;  // as the system's own
  std::filesystem::path resolved = path;
  for (int links = 0;; ++links) {
    if (!resolved.has_filename()) resolved = resolved.parent_path();  // "checkpoint/" names the same as "checkpoint"
    std::error_code error;
    const std::filesystem::path name = resolved.filename();
    if (name == "." || name == "..") resolved = std::filesystem::canonical(resolved, error);
    check<IoError>(!error && resolved.has_filename(), path.string(), "needs the name of a file or directory");
    check<IoError>(links <= kMaxLinks, path.string(), "is a circle of symbolic links");
    const std::filesystem::path target = std::filesystem::read_symlink(resolved, error);
    if (error) return resolved;
    resolved = parent_directory(resolved) / target;
  }
}

void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    fail_with(to, "cannot rename the finished temporary to this name", errno);
}

std::string temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};
  return std::string(kTemporary) + path.filename().string() + "-" + std::to_string(::getpid()) + "-" +
         std::to_string(process_token()) + "-" + std::to_string(counter++);
}

std::vector<Leftover> leftovers_in(const std::filesystem::path& directory) {
  std::vector<Leftover> found;
  int ignored = 0;
  for (std::filesystem::path& entry : directory_entries(directory, ignored)) {
    const std::string file = entry.filename().string();
    std::size_t end = file.size();  // of the name, which stands before three numbers
    for (int numbers = 0; numbers < 3 && end != std::string::npos && end > 0; ++numbers) end = file.rfind('-', end - 1);
    if (!file.starts_with(kTemporary) || end == std::string::npos || end <= kTemporary.size()) continue;
    const std::optional<TemporaryOwner> owner = read_owner(std::string_view(file).substr(end + 1));
    if (owner && is_gone(*owner))
      found.push_back({std::move(entry), file.substr(kTemporary.size(), end - kTemporary.size())});
  }
  return found;
}

std::vector<std::filesystem::path> leftovers(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> found;
  for (Leftover& each : leftovers_in(parent_directory(path))) {
    if (each.name == path.filename().string()) found.push_back(std::move(each.path));
  }
  return found;
}

}  // namespace detail

std::string read_file(const std::filesystem::path& path, std::int64_t max_bytes) {
  // O_NONBLOCK: opening a pipe that nobody writes to would wait for ever, before it could be refused.
  detail::FileDescriptor file(path, O_RDONLY | O_NONBLOCK);
  const std::int64_t size = file.regular_size();
  check<IoError>(size <= max_bytes, path.string(), "needs at most ", max_bytes, " bytes; got ", size);
  std::string bytes(static_cast<std::size_t>(size), '\0');
  file.read_exactly(bytes.data(), bytes.size(), 0);
  return bytes;
}

AtomicFile::AtomicFile(std::filesystem::path destination) : destination_(std::move(destination)) {
  check<IoError>(destination_.has_filename(), destination_.string(), "needs the name of a file");
  struct stat status {};
  struct stat named {};
  const bool there = ::stat(destination_.c_str(), &status) == 0;
  check<IoError>(!there || S_ISREG(status.st_mode), destination_.string(), "cannot be replaced by a file: it is ",
                 kind_of(status.st_mode));
  const std::filesystem::path real = detail::resolve_links(destination_);
  // What /dev/stdout leads to may have no name any more.
  check<IoError>(
      !there || (::lstat(real.c_str(), &named) == 0 && named.st_dev == status.st_dev && named.st_ino == status.st_ino),
      destination_.string(), "cannot be replaced: the file that it leads to has no name");
  destination_ = real;
  for (const std::filesystem::path& leftover : detail::leftovers(destination_)) ::unlink(leftover.c_str());
  // The system applies the umask to 0666 here. mkstemp's 0600 would survive the rename and lock other users out.
  file_ = detail::FileDescriptor(detail::parent_directory(destination_) / detail::temporary_name(destination_),
                                 O_WRONLY | O_CREAT | O_EXCL, 0666);
}

AtomicFile::~AtomicFile() {
  if (!file_.path().empty()) ::unlink(file_.path().c_str());
}

void AtomicFile::commit() {
  file_.sync();
  file_.close();
  detail::rename_path(file_.path(), destination_);
  file_ = {};
  detail::sync_directory(detail::parent_directory(destination_));
}

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

LineWriter::LineWriter(const std::filesystem::path& path, Mode mode)
    : file_(path, O_RDWR | O_CREAT | O_APPEND | (mode == Mode::truncate ? O_TRUNC : 0)) {
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) fail_with(path, "cannot examine", errno);
  check<IoError>(!S_ISDIR(status.st_mode), path.string(), "needs a file; got a directory");
  is_regular_ = S_ISREG(status.st_mode);
  end_ = is_regular_ ? static_cast<std::int64_t>(status.st_size) : 0;
  if (is_regular_) drop_torn_line();
}

void LineWriter::drop_torn_line() {
  const std::int64_t size = end_;
  std::string block;
  while (end_ > 0) {
    const std::int64_t begin = std::max<std::int64_t>(0, end_ - 65536);
    block.resize(static_cast<std::size_t>(end_ - begin));
    file_.read_exactly(block.data(), block.size(), begin);
    const std::size_t newline = block.rfind('\n');
    end_ = newline == std::string::npos ? begin : begin + static_cast<std::int64_t>(newline) + 1;
    if (newline != std::string::npos) break;
  }
  if (end_ != size && ::ftruncate(file_.get(), end_) != 0)
    fail_with(file_.path(), "cannot drop a torn last line", errno);
}

void LineWriter::write_line(std::string_view line) {
  check<ValueError>(line.find('\n') == std::string_view::npos, file_.path().string(), "needs a line without a newline");
  buffer_.assign(line);
  buffer_ += '\n';
  try {
    file_.write_all(buffer_);
  } catch (const IoError&) {
    // Part of the line may be in the file; without the cut, the next line would continue it. The write's own error is
    // what the caller needs to know, and a failed cut is repaired by the next opening.
    if (is_regular_ && ::ftruncate(file_.get(), end_) != 0) buffer_.clear();
    throw;
  }
  end_ += static_cast<std::int64_t>(buffer_.size());
}

}  // namespace tally
