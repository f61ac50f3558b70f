#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "tally/core/file.h"
#include "tally/core/json.h"
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

  /// Names have no tabs and no line breaks. Throw IoError when the write fails; of a batch, the first events may then
  /// be in the log.
  void append(std::span<const UserEvent> events);
  void append_use(std::string_view user);
  void append_eviction(std::int64_t keep);

  std::int64_t bytes() const { return file_.size(); }
  /// Makes what was logged survive a power loss, if `interval` has passed since it was done last.
  void sync(std::chrono::milliseconds interval = std::chrono::milliseconds(0));

  /// Does to `sessions`, which are the snapshot's, what the log beside it says; nothing where there is none. Throws
  /// IoError for a log that is damaged, ValueError for one of another snapshot, model or items.
  static void replay(const std::filesystem::path& directory, const Json& fields, Sessions& sessions);

 private:
  void write(std::string_view content);

  LineWriter file_;
  bool synced_ = true;
  std::chrono::steady_clock::time_point last_sync_ = std::chrono::steady_clock::now();
  std::string line_;
};

}  // namespace tally::recsys
