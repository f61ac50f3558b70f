#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "tally/core/io/directory_lock.h"
#include "tally/recsys/sessions/session_log.h"
#include "tally/recsys/sessions/sessions.h"

namespace tally::recsys {

struct DurableOptions {
  /// A snapshot is taken when the log has more bytes than this and than the last snapshot, so that a start replays no
  /// more than it loads, and all snapshots together write no more than the log does.
  std::int64_t min_log_bytes = std::int64_t{16} << 20;
};

/// Sessions that live in a directory: a snapshot (Sessions::save) and a log of what came since. An event is in the log
/// before append() returns, so a killed process loses none that a caller was told of; a power loss takes those of the
/// last second at most, if sync() is called while nothing else is. What the next start finds is what there was, bit for
/// bit, last uses and evictions included. The directory is locked (DirectoryLock) as long as this lives.
///
/// Calls come from one thread at a time; a batch is taken in parallel.
class DurableSessions {
 public:
  /// Loads the directory, or begins it when it is not there or empty. An empty path keeps sessions in memory alone.
  /// Throws IoError when the directory cannot be written or another process writes it, and as Sessions::load() does.
  DurableSessions(const std::filesystem::path& directory, std::shared_ptr<const RecurrentModel> model, IdMap items,
                  SessionsOptions options = {}, DurableOptions durable = {});

  /// To look at; what changes them goes through here.
  const Sessions& sessions() const { return sessions_; }

  /// As Sessions::append(), after which the events are logged. Throws ValueError for names with control characters,
  /// too, and IoError when the log cannot be written. After any other throw than one about a name, some of these events
  /// may have been taken and not logged; the next call that changes something saves a snapshot first.
  void append(std::span<const UserEvent> events);
  /// As Sessions::recommend(); the use is logged.
  std::vector<ScoredItem> recommend(std::string_view user, std::int64_t k);
  /// An event and the recommendations after it, logged at once.
  std::vector<ScoredItem> append_and_recommend(const UserEvent& event, std::int64_t k);
  std::int64_t evict_least_recent(std::int64_t keep);

  /// Makes what was logged survive a power loss, at most once a second: else it returns at once.
  void sync();
  /// Takes a snapshot and begins a new log. After an IoError the snapshot and the log of before are there as they were.
  void save();

 private:
  /// Runs `change`, which changes the sessions and adds to the log what it did, and writes the log.
  template <class Change>
  auto logged(Change&& change);
  void take(std::span<const UserEvent> events);
  std::vector<ScoredItem> answer(std::string_view user, std::int64_t k);
  void open_log();

  std::filesystem::path directory_;  ///< where it really lies
  std::optional<DirectoryLock> lock_;
  DurableOptions options_;
  Sessions sessions_;
  std::optional<SessionLog> log_;
  std::int64_t snapshot_bytes_ = 0;
  bool log_lacks_some_ = false;  ///< sessions hold what neither snapshot nor log does
};

}  // namespace tally::recsys
