#include "tools/stream_recommendations.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <functional>
#include <optional>
#include <utility>

#include "tally/core/io/line_reader.h"
#include "tally/recsys/data/event_fields.h"
#include "tally/recsys/sessions/durable_sessions.h"
#include "tools/print.h"
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

  /// `while_waiting` is called now and then while no input comes.
  explicit LineStream(std::function<void()> while_waiting) : while_waiting_(std::move(while_waiting)) {}

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
    if (::poll(&input, 1, 100) <= 0) return while_waiting_();
    char block[1 << 16];
    const ssize_t got = ::read(STDIN_FILENO, block, sizeof(block));
    check<IoError>(got >= 0 || errno == EINTR || errno == EAGAIN, kInput, "could not be read");
    if (got > 0) buffer_.append(block, static_cast<std::size_t>(got));
    ended_ = got == 0;
    skip_byte_order_mark();
  }

  /// The mark may come in pieces, none of which ends a line.
  void skip_byte_order_mark() {
    if (!at_start_ || (!ended_ && buffer_.size() < kByteOrderMark.size() && kByteOrderMark.starts_with(buffer_)))
      return;
    if (buffer_.starts_with(kByteOrderMark)) begin_ = kByteOrderMark.size();
    at_start_ = false;
  }

  std::function<void()> while_waiting_;
  std::string buffer_;
  std::size_t begin_ = 0;
  std::int64_t number_ = 0;
  bool ended_ = false, at_start_ = true;
};

/// An event that is taken later, with others.
struct PendingEvent {
  std::string user, item;
  double time = kNoTime;
};

class Streaming {
 public:
  Streaming(const Recommender& recommender, const StreamOptions& options)
      : recommender_(recommender),
        options_(options),
        sessions_(options.state, recommender.recurrent(), recommender.items.ids,
                  {.keep_seen = options.filter_seen, .candidates = recommender.candidate_bytes()}) {}

  int run() {
    print(recommendation_head(recommender_));
    flush_printed();
    LineStream input([&] { sessions_.sync(); });
    std::string line;
    LineStream::Next next = LineStream::Next::end;
    while ((next = input.next(line)) == LineStream::Next::line) {
      if (const std::optional<std::string> fault = take(line)) refuse(input.number(), *fault);
      if (pending_.size() >= kMaxPending || !input.has_line()) append_pending();
    }
    append_pending();
    if (bad_lines_ > 0) complain(detail::join("left out: ", bad_lines_, " bad lines, the first: ", first_fault_, '\n'));
    return next == LineStream::Next::stopped ? stopped_exit_code() : 0;
  }

  void save() {
    append_pending();
    sessions_.save();
  }

  /// After an exception, which is what will be reported: what can be saved is. What cannot was never answered, and the
  /// log has the rest.
  void save_what_can_be() noexcept {
    const auto attempt = [](auto&& action) {
      try {
        action();
      } catch (const std::exception&) {
        return;
      }
    };
    attempt([&] { append_pending(); });
    attempt([&] { sessions_.save(); });
  }

 private:
  /// Takes a line, or says what is wrong with it.
  std::optional<std::string> take(const std::string& line) {
    constexpr std::size_t kNone = std::string::npos;
    const std::size_t tab = line.find('\t'), second = tab == kNone ? kNone : line.find('\t', tab + 1);
    if (tab == kNone || (second != kNone && line.find('\t', second + 1) != kNone)) {
      return "needs two columns, a user and an item, or three with a time, and tabs between them; got '" +
             beginning_of(line) + "'";
    }
    PendingEvent event{line.substr(0, tab), line.substr(tab + 1, second - tab - 1)};
    const std::string &user = event.user, &item = event.item;
    if (user.empty() || item.empty()) return "needs a user and an item; got '" + beginning_of(line) + "'";
    if (const std::string_view fault = fault_of_id(user); !fault.empty()) {
      return "needs a user " + std::string(fault) + "; got '" + beginning_of(user) + "'";
    }
    if (item == "?") {
      append_pending();
      answer(user, sessions_.sessions().contains(user) ? Recommendation{sessions_.recommend(user, options_.k), false}
                                                       : recommender_.recommend(nobody_, {.k = options_.k}).front());
      return std::nullopt;
    }
    if (!sessions_.sessions().items().find(item)) {
      return "item '" + beginning_of(item) + "' is not among those that the model was trained with";
    }
    if (second != kNone) {
      const std::string text = line.substr(second + 1);
      if (const std::string_view fault = read_time(text, event.time); !fault.empty()) {
        return "needs a time " + std::string(fault) + "; got '" + beginning_of(text) + "'";
      }
    } else if (sessions_.sessions().model().reads_times()) {
      return "needs a third column, the time of the event, which the model reads; got '" + beginning_of(line) + "'";
    }
    if (options_.answer_events) {
      answer(user, {sessions_.append_and_recommend({user, item, event.time}, options_.k), false});
      bound_sessions();
    } else {
      pending_.push_back(std::move(event));
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
    for (const PendingEvent& event : taken) events.push_back({event.user, event.item, event.time});
    sessions_.append(events);
    bound_sessions();
  }

  void bound_sessions() {
    if (options_.max_sessions > 0 && sessions_.sessions().size() > options_.max_sessions) {
      sessions_.evict_least_recent(options_.max_sessions - options_.max_sessions / 10);
    }
  }

  void answer(const std::string& user, const Recommendation& list) {
    print(recommendation_rows(recommender_, user, list));
    flush_printed();
  }

  const Recommender& recommender_;
  const StreamOptions& options_;
  const Sequences nobody_ = Sequences::from({{}}, recommender_.items.size());  ///< one empty history
  DurableSessions sessions_;
  std::vector<PendingEvent> pending_;
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
  } catch (const std::exception&) {
    streaming.save_what_can_be();
    throw;
  }
  streaming.save();
  return exit_code;
}

}  // namespace tally::tools
