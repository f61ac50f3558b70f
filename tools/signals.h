#pragma once

namespace tally::tools {

/// From now on the first SIGINT, SIGTERM or SIGHUP is only noted, for work that stops at a point of its choice; a
/// second one, of any of the three, ends the program at once. Those that are ignored stay so.
void note_stop_signals();

/// Whether one came.
bool stop_requested();

/// What a program returns after it: 128 and the number of the signal.
int stopped_exit_code();

}  // namespace tally::tools
