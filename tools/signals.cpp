#include "tools/signals.h"

#include <atomic>
#include <csignal>

namespace tally::tools {
namespace {

std::atomic<int> received_signal{0};

void on_signal(int number) {
  received_signal = number;
  std::signal(SIGINT, SIG_DFL);
}

}  // namespace

void note_stop_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    action.sa_handler = on_signal;
    sigaction(number, &action, nullptr);
  }
}

bool stop_requested() { return received_signal != 0; }

int stopped_exit_code() { return 128 + received_signal; }

}  // namespace tally::tools
