#include "tools/stream_recommendations.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <optional>
#include <utility>

#include "tally/core/atomic_directory.h"
#include "tally/recsys/sessions/sessions.h"
#include "tools/recommendation_rows.h"
#include "tools/signals.h"

namespace tally::tools {
namespace {

using namespace recsys;

constexpr std::string_view kInput = "standard input";
constexpr std::size_t kMaxLine = std::size_t{1} << 20;
constexpr std::size_t kMaxPending = 4096;

/// Lines of standard input as they come. Unlike core's LineReader it wakes up for signals.
class LineStream {
 public:
  enum class Next { line, end, stopped };

  /// Waits for a line, without its end. Once a stop is asked for nothing more is read, but whole lines that were read
  /// are given out: the writer cannot write them again.
  Next next(std::string& line) {
    while (true) {
      const std::size_t newline = buffer_.find('\n', begin_);
      if (newline == std::string::npos && stop_requested()) return Next::stopped;
      if (newline != std::string::npos || (ended_ && begin_ < buffer_.size())) {
        const std::size_t end = std::min(newline, buffer_.size());
        line.assign(buffer_, begin_, end - begin_);
        if (!line.empty() && line.back() == '\r') line.pop_back();
        begin_ = std::min(end + 1, buffer_.size());
        ++number_;
        return Next::line;
      }
      if (ended_) return Next::end;
      check<IoError>(buffer_.size() - begin_ <= kMaxLine, detail::join(kInput, ':', number_ + 1),
                     "needs lines of at most ", kMaxLine, " bytes");
      read_more();
    }
  }
  std::int64_t number() const { return number_; }
  /// Is a whole further line here already?
  bool has_line() const { return buffer_.find('\n', begin_) != std::string::npos; }

 private:
  void read_more() {
    buffer_.erase(0, begin_);
    begin_ = 0;
    // A signal may arrive between the look at it and the wait, or on another thread, so the wait is a short one.
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, 100) <= 0) return;
    char block[1 << 16];
    const ssize_t got = ::read(STDIN_FILENO, block, sizeof(block));
    check<IoError>(got >= 0 || errno == EINTR || errno == EAGAIN, kInput, "could not be read");
    if (got > 0) buffer_.append(block, static_cast<std::size_t>(got));
    ended_ = got == 0;
  }

  std::string buffer_;
  std::size_t begin_ = 0;
  std::int64_t number_ = 0;
  bool ended_ = false;
};

class Streaming {
 public:
  Streaming(const Recommender& recommender, const StreamOptions& options)
      : recommender_(recommender),
        options_(options),
        sessions_(recommender.recurrent(), recommender.items, {.keep_seen = options.filter_seen}) {
    if (!options.state.empty() && (directory_committed(options.state) || std::filesystem::exists(options.state))) {
      sessions_.load(options.state);
    }
  }

  int run() {
    std::cout << recommendation_head(recommender_) << std::flush;
    LineStream input;
    std::string line;
    LineStream::Next next = LineStream::Next::end;
    while ((next = input.next(line)) == LineStream::Next::line) {
      if (const std::optional<std::string> fault = take(line)) refuse(input.number(), *fault);
      if (pending_.size() >= kMaxPending || !input.has_line()) append_pending();
      check<IoError>(static_cast<bool>(std::cout), "standard output", "could not be written");
    }
    append_pending();
    if (bad_lines_ > 0) std::cerr << "left out: " << bad_lines_ << " bad lines, the first: " << first_fault_ << '\n';
    return next == LineStream::Next::stopped ? stopped_exit_code() : 0;
  }

  void save() {
    append_pending();
    if (!options_.state.empty()) sessions_.save(options_.state);
  }

 private:
  /// Takes a line, or says what is wrong with it.
  std::optional<std::string> take(const std::string& line) {
    const std::size_t tab = line.find('\t');
    if (tab == std::string::npos || line.find('\t', tab + 1) != std::string::npos) {
      return "needs two columns, a user and an item, with a tab between them; got '" + line + "'";
    }
    std::string user = line.substr(0, tab), item = line.substr(tab + 1);
    if (user.empty() || item.empty()) return "needs a user and an item; got '" + line + "'";
    if (item == "?") {
      append_pending();
      if (!sessions_.contains(user)) return "asks for user '" + user + "', who has no events";
      answer(user);
      return std::nullopt;
    }
    if (!sessions_.items().find(item)) return "item '" + item + "' is not among those that the model was trained with";
    pending_.emplace_back(std::move(user), std::move(item));
    if (options_.answer_events) {
      const std::string owner = pending_.back().first;
      append_pending();
      answer(owner);
    }
    return std::nullopt;
  }

  void refuse(std::int64_t number, const std::string& fault) {
    const std::string where = detail::join(kInput, ':', number);
    if (!options_.skip_bad_lines) fail<IoError>(where, fault);
    if (bad_lines_++ == 0) first_fault_ = detail::join('[', where, "] ", fault);
  }

  void append_pending() {
    if (pending_.empty()) return;
    // Let go of before they are taken: should that throw, the sessions are saved without them.
    const auto taken = std::exchange(pending_, {});
    std::vector<UserEvent> events;
    events.reserve(taken.size());
    for (const auto& [user, item] : taken) events.push_back({user, item});
    sessions_.append(events);
    if (options_.max_sessions > 0 && sessions_.size() > options_.max_sessions) {
      sessions_.evict_least_recent(options_.max_sessions - options_.max_sessions / 10);
    }
  }

  void answer(const std::string& user) {
    std::cout << recommendation_rows(recommender_, user, sessions_.recommend(user, options_.k)) << std::flush;
  }

  const Recommender& recommender_;
  const StreamOptions& options_;
  Sessions sessions_;
  std::vector<std::pair<std::string, std::string>> pending_;
  std::int64_t bad_lines_ = 0;
  std::string first_fault_;
};

}  // namespace

int stream_recommendations(const Recommender& recommender, const StreamOptions& options) {
  note_stop_signals();
  Streaming streaming(recommender, options);
  int exit_code = 0;
  try {
    exit_code = streaming.run();
  } catch (const Error&) {
    streaming.save();
    throw;
  }
  streaming.save();
  return exit_code;
}

}  // namespace tally::tools
