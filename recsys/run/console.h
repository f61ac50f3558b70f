#pragma once

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>

namespace tally::recsys {

/// Where a run reports to a person, in printable() text. On a terminal the progress of an epoch is a bar that is drawn
/// over itself, at most ten times a second; elsewhere only whole lines are written.
class Console {
 public:
  Console(std::ostream& out, bool is_terminal) : out_(out), is_terminal_(is_terminal) {}

  /// A whole line; clears the bar first.
  void line(const std::string& text);
  /// Several lines that end with a newline.
  void block(const std::string& text);
  /// `done` of `total`, with a note behind it. Nothing unless on a terminal.
  void progress(const std::string& label, std::int64_t done, std::int64_t total, const std::string& note);

 private:
  void clear();

  std::ostream& out_;
  bool is_terminal_;
  bool bar_shown_ = false;
  std::chrono::steady_clock::time_point last_drawn_{};
};

}  // namespace tally::recsys
