#pragma once

#include <cstdint>
#include <filesystem>

#include "tally/recsys/serving/recommender.h"

namespace tally::tools {

struct StreamOptions {
  std::int64_t k = 10;
  bool filter_seen = true;
  bool answer_events = true;      ///< else only query lines are answered
  bool skip_bad_lines = false;    ///< else the first ends the stream
  std::int64_t max_sessions = 0;  ///< beyond, a tenth of the users is forgotten, the least recently used; 0: no bound
  std::filesystem::path state = {};  ///< where users are kept (DurableSessions); empty: in memory alone
};

/// Reads lines `user TAB item` or `user TAB item TAB time` (an event; the time is for models that read times, in the
/// unit of the training data) and `user TAB ?` (a query) from standard input and writes each answer, up to k lines of
/// the table that recommendation_head begins, to standard output at once. An event is logged in the state before it is
/// answered. Ends with the input, or after the line in work when a stop signal came; either way, and when a bad line or
/// any other exception ends it, sessions are saved. Returns the exit code. Throws IoError for a bad line, naming it,
/// when answers cannot be written, and before the first line is read when the state cannot be written or another
/// process writes it.
int stream_recommendations(const recsys::Recommender& recommender, const StreamOptions& options);

}  // namespace tally::tools
