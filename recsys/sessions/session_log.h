#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include "tally/core/io/file.h"
#include "tally/core/io/json.h"
#include "tally/core/io/line_reader.h"
#include "tally/recsys/sessions/sessions.h"

namespace tally::recsys {

/// Sixteen digits: how manifests and logs of sessions write hashes.
std::string hexadecimal(std::uint64_t value);

/// What came after a snapshot of sessions, in order: events, uses (a recommendation moves a user's last use) and
/// evictions. Lines of text, each with a hash of itself, handed to the system in one write: a killed process loses
/// nothing of what was logged, and leaves at most one torn line, which counts as never written. The first line says to
/// which snapshot, model and items the log belongs.
class SessionLog {
 public:
  static constexpr const char* kFile = "events.log";  ///< within the directory of the snapshot

  /// Opens the log beside a snapshot, or begins it. `fields` are those of the snapshot's manifest. Throws IoError.
  SessionLog(const std::filesystem::path& directory, const Json& fields);

  /// Adds to the line that write() hands to the system, before which nothing is certain; a line that has grown long is
  /// written at once. Names have no tabs and no line breaks. Throw IoError when a write fails: the log then ends with
  /// the line before, and what was added since is to be given up with this object.
  void add_event(const UserEvent& event);
  void add_use(std::string_view user) { add({kUse, user}); }
  void add_eviction(std::int64_t keep) { add({kEviction, std::to_string(keep)}); }
  void write();

  std::int64_t bytes() const { return file_.size(); }
  /// Makes what was logged survive a power loss, if `interval` has passed since it was done last.
  void sync(std::chrono::milliseconds interval = std::chrono::milliseconds(0));

  /// Does to `sessions`, which are the snapshot's, what the log beside it says; nothing where there is none. Throws
  /// IoError for a log that is damaged, ValueError for one of another snapshot, model or items.
  static void replay(const std::filesystem::path& directory, const Json& fields, Sessions& sessions);

 private:
  // A line is `HASH TAB operation TAB operation ...`; these are operations, with tabs between their parts.
  static constexpr std::string_view kEvent = "e";     // user, item
  static constexpr std::string_view kTimed = "t";     // user, item, time
  static constexpr std::string_view kUse = "u";       // user
  static constexpr std::string_view kEviction = "k";  // how many users are kept

  void add(std::initializer_list<std::string_view> operation);
  static void replay_line(std::string_view operations, const LineReader& lines, Sessions& sessions);

  LineWriter file_;
  std::string line_;  ///< without its hash
  bool synced_ = true;
  std::chrono::steady_clock::time_point last_sync_ = std::chrono::steady_clock::now();
};

}  // namespace tally::recsys
