#include "tally/core/io/line_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "tally/core/io/file.h"

namespace tally {
namespace {

constexpr std::size_t kBlock = std::size_t{1} << 20;

/// A file that is read from front to back, and may be waited for.
class Input {
 public:
  Input(const std::filesystem::path& path, StopRequested stop_requested)
      : stop_requested_(std::move(stop_requested)),
        // A pipe that nobody writes to yet is opened at once where it is to be waited for below.
        file_(path == "-" ? "/dev/stdin" : path, stop_requested_ ? O_RDONLY | O_NONBLOCK : O_RDONLY) {
    struct stat status {};
    const bool known = ::fstat(file_.get(), &status) == 0;
    check<IoError>(!known || !S_ISDIR(status.st_mode), path.string(), "needs a file; got a directory");
    waits_ = stop_requested_ && !(known && S_ISREG(status.st_mode));
    if (waits_) ::fcntl(file_.get(), F_SETFL, ::fcntl(file_.get(), F_GETFL) & ~O_NONBLOCK);
  }

  std::size_t read_some(void* out, std::size_t size) {
    constexpr int kMillisecondsBetween = 100;
    if (waits_) {
      pollfd readable{.fd = file_.get(), .events = POLLIN, .revents = 0};
      do {
        check_stop(stop_requested_, file_.path().string());
      } while (::poll(&readable, 1, kMillisecondsBetween) <= 0);
    }
    return file_.read_some(out, size);
  }

 private:
  StopRequested stop_requested_;
  detail::FileDescriptor file_;
  bool waits_ = false;
};

/// Undoes gzip, member after member, over blocks of input.
class Gunzip {
 public:
  Gunzip() {
    // 15: the largest window; 16: gzip headers only.
    if (::inflateInit2(&stream_, 15 + 16) != Z_OK) throw std::bad_alloc();
  }
  ~Gunzip() { ::inflateEnd(&stream_); }
  Gunzip(const Gunzip&) = delete;
  Gunzip& operator=(const Gunzip&) = delete;

  /// Fills `out` as far as `in` (and what inflate still holds) reaches, and drops from `in` what was used. Returns null
  /// or what is wrong.
  const char* run(std::string_view& in, char* out, std::size_t capacity, std::size_t& written) {
    written = 0;
    while (written < capacity) {
      if (member_ended_) {
        if (in.empty()) break;
        // Tapes and some tools pad with zeros; anything else that is no member is damage, or something hidden.
        if (in.front() == '\0') {
          padding_ = true;
          in.remove_prefix(1);
          continue;
        }
        if (padding_ || in.front() != '\x1f') return "has bytes after its gzip data that are no gzip data";
        ::inflateReset(&stream_);
        member_ended_ = false;
      }
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
      stream_.avail_in = static_cast<uInt>(in.size());
      stream_.next_out = reinterpret_cast<Bytef*>(out + written);
      stream_.avail_out = static_cast<uInt>(capacity - written);
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      in.remove_prefix(in.size() - stream_.avail_in);
      written = capacity - stream_.avail_out;
      if (status == Z_STREAM_END) {
        member_ended_ = true;
      } else if (status == Z_BUF_ERROR) {
        break;
      } else if (status != Z_OK) {
        return "has damaged gzip data";
      }
    }
    return nullptr;
  }
  bool member_ended() const { return member_ended_; }

 private:
  z_stream stream_{};
  bool member_ended_ = false;
  bool padding_ = false;
};

}  // namespace

/// The bytes of the file in order, decompressed, appended to one buffer.
class LineReader::Source {
 public:
  Source(const std::filesystem::path& path, StopRequested stop_requested)
      : file_(path, std::move(stop_requested)), input_(kBlock) {}

  /// Drops the first `used` bytes of the buffer and reads more behind the rest. Returns how many; 0 at the end.
  std::size_t advance(std::size_t used, const LineReader& reader) {
    if (used > 0) std::memmove(buffer_.data(), buffer_.data() + used, filled_ - used);
    filled_ -= used;
    if (buffer_.size() < filled_ + kBlock) buffer_.resize(std::max(2 * buffer_.size(), filled_ + kBlock));
    const std::size_t before = filled_;
    while (filled_ == before && !finished_) read_more(reader);
    return filled_ - before;
  }
  const char* data() const { return buffer_.data(); }
  std::size_t size() const { return filled_; }

 private:
  void read_more(const LineReader& reader) {
    char* const out = buffer_.data() + filled_;
    const std::size_t capacity = buffer_.size() - filled_;
    if (gunzip_ == nullptr && !started_) start();
    if (gunzip_ == nullptr) {
      const std::size_t from_start = std::min(pending_.size(), capacity);
      std::copy_n(pending_.data(), from_start, out);
      pending_.remove_prefix(from_start);
      const std::size_t count = from_start > 0 ? from_start : file_.read_some(out, capacity);
      filled_ += count;
      finished_ = count == 0;
      return;
    }
    std::size_t written = 0;
    const char* const problem = gunzip_->run(pending_, out, capacity, written);
    filled_ += written;
    if (problem != nullptr) fail_gzip(reader, problem);
    if (written > 0 || !pending_.empty()) return;
    pending_ = {input_.data(), file_.read_some(input_.data(), input_.size())};
    finished_ = pending_.empty();
    if (finished_ && !gunzip_->member_ended()) fail_gzip(reader, "ends within its gzip data: it was cut off");
  }

  /// Reads the first bytes, which tell gzip from text.
  void start() {
    started_ = true;
    std::size_t count = 0;
    while (count < 2) {
      const std::size_t more = file_.read_some(input_.data() + count, input_.size() - count);
      if (more == 0) break;
      count += more;
    }
    pending_ = {input_.data(), count};
    if (pending_.starts_with("\x1f\x8b")) gunzip_ = std::make_unique<Gunzip>();
  }

  [[noreturn]] void fail_gzip(const LineReader& reader, const char* problem) const {
    // Lines that were decompressed whole are not given out any more, but they tell how far the file is good.
    const auto whole = std::count(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(filled_), '\n');
    fail<IoError>(detail::join(reader.name_, ':', reader.line_number_ + whole + 1), problem);
  }

  Input file_;
  std::vector<char> input_;
  std::vector<char> buffer_;
  std::size_t filled_ = 0;
  std::string_view pending_;  ///< part of input_ not yet used
  std::unique_ptr<Gunzip> gunzip_;
  bool started_ = false;
  bool finished_ = false;
};

LineReader::LineReader(const std::filesystem::path& path, std::size_t max_line, StopRequested stop_requested)
    : name_(path == "-" ? "standard input" : path.string()),
      max_line_(max_line),
      source_(std::make_unique<Source>(path, std::move(stop_requested))) {}

LineReader::~LineReader() = default;
LineReader::LineReader(LineReader&&) noexcept = default;
LineReader& LineReader::operator=(LineReader&&) noexcept = default;

bool LineReader::next_across_blocks(std::string_view& line) {
  std::size_t searched = end_ - position_;
  while (true) {
    const bool at_start = block_ == nullptr;
    std::size_t added = 0;
    // The buffer may move even when nothing is added to it.
    const auto advance = [&](std::size_t used) {
      added = source_->advance(used, *this);
      block_ = source_->data();
      end_ = source_->size();
    };
    advance(position_);
    position_ = 0;
    if (at_start) {
      // A mark split over two short reads of a pipe is completed first.
      while (added > 0 && end_ < kByteOrderMark.size() && kByteOrderMark.starts_with(std::string_view(block_, end_)))
        advance(0);
      position_ = end_ - without_byte_order_mark(std::string_view(block_, end_)).size();
      searched = position_;
    }
    const void* newline = end_ > searched ? std::memchr(block_ + searched, '\n', end_ - searched) : nullptr;
    const char* const begin = block_ + position_;
    if (newline != nullptr) {
      const auto length = static_cast<std::size_t>(static_cast<const char*>(newline) - begin);
      position_ += length + 1;
      return take(line, begin, length);
    }
    const std::size_t length = end_ - position_;
    if (added == 0) {
      position_ = end_;
      return length > 0 && take(line, begin, length);
    }
    if (length > max_line_ + 1) {
      ++line_number_;
      refuse_long_line();
    }
    searched = end_ - position_;
  }
}

void LineReader::refuse_long_line() const { refuse("needs lines of at most ", max_line_, " bytes"); }

}  // namespace tally
