#include "tally/recsys/run/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "tally/core/io/printable.h"

namespace tally::recsys {
namespace {

constexpr int kDefaultColumns = 100;
constexpr std::string_view kKept = "\n\t";
constexpr auto kRedraw = std::chrono::milliseconds(100);

int columns() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefaultColumns;
  return size.ws_col;
}

}  // namespace

void Console::clear() {
  if (!bar_shown_) return;
  out_ << "\r\033[K";
  bar_shown_ = false;
}

void Console::line(const std::string& text) {
  clear();
  out_ << printable(text, kKept) << '\n' << std::flush;
}

void Console::block(const std::string& text) {
  clear();
  out_ << printable(text, kKept) << std::flush;
}

void Console::progress(const std::string& label, std::int64_t done, std::int64_t total, const std::string& note) {
  if (!is_terminal_ || total <= 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (bar_shown_ && done < total && now - last_drawn_ < kRedraw) return;
  last_drawn_ = now;
  const int width = std::clamp(columns() - static_cast<int>(label.size() + note.size()) - 6, 5, 40);
  const auto filled = static_cast<int>(width * std::min(done, total) / total);
  out_ << '\r' << printable(label) << " [" << std::string(static_cast<std::size_t>(filled), '=')
       << std::string(static_cast<std::size_t>(width - filled), ' ') << "] " << printable(note) << "\033[K"
       << std::flush;
  bar_shown_ = true;
}

}  // namespace tally::recsys
