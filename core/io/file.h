#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tally {

/// Makes failed writes errors instead of signals: SIGXFSZ (file size limit) and SIGPIPE are ignored from now on, so
/// that they arrive as EFBIG and EPIPE. Programs call it once at the start; the library itself never touches signals.
void ignore_write_signals();

/// Opens what is closed of standard input, output and error, so that no file gets their numbers, and with them what is
/// printed. Reading and writing them stays an error. Programs call it once at the start.
void hold_standard_descriptors();

/// Is there anything of this name? What cannot be looked at is not there.
bool is_there(const std::filesystem::path& path);

/// The bytes of a regular file. Throws IoError naming the path when it cannot be opened, is not a regular file (a pipe,
/// a directory, a device), is larger than `max_bytes`, or shrinks while it is read.
std::string read_file(const std::filesystem::path& path, std::int64_t max_bytes = std::int64_t{1} << 30);

namespace detail {

/// An open file descriptor with checked operations; every failure is an IoError naming the path and the reason.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  /// `flags` and `mode` as in open(2); O_CLOEXEC is added, EINTR is retried.
  FileDescriptor(std::filesystem::path path, int flags, unsigned mode = 0666);
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  bool is_open() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }
  const std::filesystem::path& path() const { return path_; }
  /// Size in bytes. Throws IoError unless this is a regular file.
  std::int64_t regular_size() const;
  /// Reads up to `size` bytes at the current position; 0 at the end of the file.
  std::size_t read_some(void* out, std::size_t size);
  /// Reads exactly `size` bytes at `offset`; a file that ends before is an error.
  void read_exactly(void* out, std::size_t size, std::int64_t offset);
  /// Writes everything, going on after short writes and interrupts.
  void write_all(std::string_view bytes);
  void sync();
  void close();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// Makes the names within a directory durable.
void sync_directory(const std::filesystem::path& directory);
/// The directory that holds `path`: "." for a plain name.
std::filesystem::path parent_directory(const std::filesystem::path& path);
/// Throws IoError for a directory in which this process may not create and remove files; one that is not there passes.
void check_writable(const std::filesystem::path& directory);
/// Where a file or directory of this name really lies or would lie: symbolic links are followed, dangling ones too, and
/// the result has a plain name at its end. Throws IoError for a name that names nothing ("", "/"), or links in a
/// circle.
std::filesystem::path resolve_links(const std::filesystem::path& path);
/// Renames, replacing a file of the new name.
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);
/// A name for a temporary sibling that no other process or thread uses: `.tmp-NAME-PID-TOKEN-COUNT`.
std::string temporary_name(const std::filesystem::path& path);
/// A temporary that a process now gone left behind, and the name it was to get.
struct Leftover {
  std::filesystem::path path;
  std::string name;
};
std::vector<Leftover> leftovers_in(const std::filesystem::path& directory);
/// Those of one name: temporary siblings of `path`.
std::vector<std::filesystem::path> leftovers(const std::filesystem::path& path);

}  // namespace detail

/// A file that appears whole or not at all: written beside its destination, synced, then renamed over it. Until
/// commit() returns, the old file stays as it was; without a commit the temporary is removed. The new file has mode
/// 0666 & ~umask. A symbolic link at the destination is followed, and stays.
class AtomicFile {
 public:
  /// Throws IoError when the directory cannot be written, or when the destination exists and is no regular file.
  explicit AtomicFile(std::filesystem::path destination);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes) { file_.write_all(bytes); }
  void write(const void* data, std::size_t size) { write({static_cast<const char*>(data), size}); }
  /// Syncs, renames over the destination and syncs the directory. Call it once, as the last thing.
  void commit();

 private:
  std::filesystem::path destination_;
  detail::FileDescriptor file_;
};

/// AtomicFile with one write.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

/// Appends lines (of JSON, say) to a log. Each line is handed to the system in one write, so a killed process leaves at
/// most the last line torn, and opening for append drops such a torn line.
class LineWriter {
 public:
  enum class Mode { append, truncate };
  explicit LineWriter(const std::filesystem::path& path, Mode mode = Mode::append);

  /// Writes `line` and a newline. Throws ValueError for a line with a newline in it, and IoError when the write fails;
  /// the file then ends with the line before.
  void write_line(std::string_view line);
  /// Makes what was written survive a power loss.
  void sync() { file_.sync(); }
  /// Bytes of the log; 0 for a pipe or a device that nothing was written to yet.
  std::int64_t size() const { return end_; }

 private:
  void drop_torn_line();

  detail::FileDescriptor file_;
  std::string buffer_;
  bool is_regular_ = false;
  std::int64_t end_ = 0;
};

}  // namespace tally
