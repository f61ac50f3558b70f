#include "tools/signals.h"

#include <atomic>
#include <csignal>

namespace tally::tools {
namespace {

constexpr int kStopSignals[] = {SIGINT, SIGTERM, SIGHUP};
std::atomic<int> received_signal{0};

void on_signal(int number) {
  received_signal = number;
  for (const int each : kStopSignals) {
    struct sigaction now {};
    if (sigaction(each, nullptr, &now) == 0 && now.sa_handler == on_signal) std::signal(each, SIG_DFL);
  }
}

}  // namespace

void note_stop_signals() {
  for (const int number : kStopSignals) {
    struct sigaction before {
    }, action{};
    // What the caller had ignored stays so: nohup, and the jobs of a shell without job control.
    if (sigaction(number, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;  // what is being printed is printed whole; whoever waits for input looks now and then
    sigaction(number, &action, nullptr);
  }
}

bool stop_requested() { return received_signal != 0; }

int stopped_exit_code() { return 128 + received_signal; }

}  // namespace tally::tools
