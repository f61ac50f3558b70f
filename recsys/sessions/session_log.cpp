#include "tally/recsys/sessions/session_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <system_error>
#include <vector>

#include "tally/core/io/fingerprint.h"
#include "tally/core/io/reason.h"

namespace tally::recsys {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLogFormat = "tally session log";
constexpr std::int64_t kLogVersion = 2;
constexpr std::size_t kLine = std::size_t{1} << 16;  // bytes after which a line is ended: a large batch is several

/// What a log and its snapshot must have in common.
Json identity_of(const Json& fields) {
  return Json::object({{"format", kLogFormat},
                       {"version", kLogVersion},
                       {"generation", fields.at("generation")},
                       {"fingerprint", fields.at("fingerprint")},
                       {"items", fields.at("items")}});
}

/// The number that all of a text says, or nothing.
template <class Number>
std::optional<Number> number_of(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

/// Takes the text up to the next tab.
std::string_view take_part(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('\t'), rest.size());
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

}  // namespace

std::string hexadecimal(std::uint64_t value) { return fmt::format("{:016x}", value); }

SessionLog::SessionLog(const fs::path& directory, const Json& fields) : file_(directory / kFile) {
  if (file_.size() > 0) return;
  add({identity_of(fields).dump()});
  write();
  sync();
  detail::sync_directory(directory);
}

void SessionLog::add_event(const UserEvent& event) {
  if (std::isfinite(event.time)) {
    add({kTimed, event.user, event.item, fmt::format("{}", event.time)});
  } else {
    add({kEvent, event.user, event.item});
  }
}

void SessionLog::add(std::initializer_list<std::string_view> operation) {
  for (const std::string_view part : operation) {
    if (!line_.empty()) line_ += '\t';
    line_ += part;
  }
  if (line_.size() >= kLine) write();
}

void SessionLog::write() {
  if (line_.empty()) return;
  line_.insert(0, hexadecimal(fingerprint(line_)) + '\t');
  file_.write_line(line_);
  line_.clear();
  synced_ = false;
}

void SessionLog::sync(std::chrono::milliseconds interval) {
  const auto now = std::chrono::steady_clock::now();
  if (synced_ || now - last_sync_ < interval) return;
  file_.sync();
  synced_ = true;
  last_sync_ = now;
}

void SessionLog::replay_line(std::string_view operations, const LineReader& lines, Sessions& sessions) {
  std::vector<UserEvent> events;
  const auto take_events = [&] {
    sessions.append(events);
    events.clear();
  };
  while (!operations.empty()) {
    const std::string_view operation = take_part(operations);
    if (operation == kEvent || operation == kTimed) {
      UserEvent event{take_part(operations), take_part(operations)};
      if (operation == kTimed) {
        const std::string_view text = take_part(operations);
        const std::optional<double> time = number_of<double>(text);
        if (!time) lines.refuse("has no time where it should: '", text, "'");
        event.time = *time;
      }
      events.push_back(event);
      continue;
    }
    take_events();
    const std::string_view value = take_part(operations);
    if (operation == kUse) {
      if (!sessions.use(value)) lines.refuse("names user '", value, "', who has no events");
    } else {
      const std::optional<std::int64_t> keep = number_of<std::int64_t>(value);
      if (operation != kEviction || !keep) {
        lines.refuse("has an operation that this program does not know: '", operation, "'");
      }
      sessions.evict_least_recent(*keep);
    }
  }
  take_events();
}

void SessionLog::replay(const fs::path& directory, const Json& fields, Sessions& sessions) {
  const fs::path path = directory / kFile;
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error == std::errc::no_such_file_or_directory) return;
  check<IoError>(!error, path.string(), "cannot be examined: ", reason_of(error.value()));
  LineReader lines(path, std::numeric_limits<std::size_t>::max() / 2);
  std::uintmax_t read = 0;
  for (std::string_view line; lines.next(line);) {
    read += line.size() + 1;
    if (read > size) break;  // without an end: it was never written whole
    const std::string_view hash = take_part(line);
    if (hash != hexadecimal(fingerprint(line))) {
      lines.refuse("is damaged; to go on without this line and those after it, cut the log before it");
    }
    if (lines.line_number() > 1) {
      replay_line(line, lines, sessions);
      continue;
    }
    const std::string expected = identity_of(fields).dump();
    check<ValueError>(line == expected, path.string(), "belongs to other sessions than those beside it: it says ", line,
                      ", they need ", expected);
  }
}

}  // namespace tally::recsys
