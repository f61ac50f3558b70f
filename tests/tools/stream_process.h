#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/process.h"
#include "tests/tools/small_runs.h"

namespace tally::test {

/// `tally recommend RUN --stream` with a pipe to its standard input.
class Stream {
 public:
  explicit Stream(std::vector<std::string> options = {}, const std::string& run = finished().run())
      : pipe_(directory_ / "pipe") {
    REQUIRE(::mkfifo(pipe_.c_str(), 0600) == 0);
    // Opened for both ends, or opening would wait for a reader.
    end_ = ::open(pipe_.c_str(), O_RDWR | O_CLOEXEC);
    REQUIRE(end_ >= 0);
    std::vector<std::string> arguments{"recommend", run, "--stream"};
    arguments.insert(arguments.end(), options.begin(), options.end());
    process_ = std::make_unique<Process>(TALLY_COMMAND, arguments, pipe_);
    // Now that it is open there, this end needs to write only; closing it is the end of the input.
    process_->wait_until([&] { return !process_->output().empty(); });
    const int writing = ::open(pipe_.c_str(), O_WRONLY | O_CLOEXEC);
    ::close(end_);
    end_ = writing;
  }
  ~Stream() { close(); }

  void write(const std::string& text) const {
    REQUIRE(::write(end_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  }
  /// Waits for the first `count` lines after the head.
  std::vector<std::string> lines(std::size_t count) const {
    std::vector<std::string> all;
    CHECK(process_->wait_until([&] {
      all = split(process_->output());
      return all.size() >= count;
    }));
    return all;
  }
  /// Writes as long as there is a reader; returns whether all was written. SIGPIPE must be ignored.
  bool write_if_read(std::string_view text) const {
    while (!text.empty()) {
      const ssize_t count = ::write(end_, text.data(), text.size());
      if (count < 0) return false;
      text.remove_prefix(static_cast<std::size_t>(count));
    }
    return true;
  }
  void limit_memory(std::size_t bytes) const { process_->limit_memory(bytes); }
  void signal(int number) const { process_->signal(number); }
  void close() {
    if (end_ >= 0) ::close(end_);
    end_ = -1;
  }
  CommandResult finish() {
    close();
    return process_->wait();
  }
  /// The same while this end stays open.
  CommandResult wait() { return process_->wait(); }
  /// What nobody has read of what was written.
  std::string unread() const {
    const int reading = ::open(pipe_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    std::string text;
    char block[4096];
    for (ssize_t got; (got = ::read(reading, block, sizeof(block))) > 0;)
      text.append(block, static_cast<std::size_t>(got));
    ::close(reading);
    return text;
  }

  /// Lines after the head.
  static std::vector<std::string> split(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> all;
    std::string line;
    if (std::getline(in, line)) CHECK(line == "user_id\titem_id\tscore\trank\ttitle\tranker");
    while (std::getline(in, line)) all.push_back(line);
    return all;
  }

 private:
  TemporaryDirectory directory_;
  std::string pipe_;
  int end_ = -1;
  std::unique_ptr<Process> process_;
};

inline std::vector<std::string> cells(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> all;
  for (std::string cell; std::getline(in, cell, '\t');) all.push_back(cell);
  return all;
}

}  // namespace tally::test
