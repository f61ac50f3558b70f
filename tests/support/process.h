#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tally/core/io/file.h"
#include "tests/support/run_command.h"

extern char** environ;

namespace tally::test {

/// A program that runs beside the test, to be signalled on its way. One that is still running at the end of the scope
/// is killed.
class Process {
 public:
  /// `input` is what it reads as standard input: a file, or a named pipe that the test has opened already.
  Process(const std::string& program, const std::vector<std::string>& arguments,
          const std::string& input = "/dev/null") {
    std::vector<std::string> words{program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, input.c_str(), O_RDONLY, 0);
    const std::string out = scratch_ / "out", error = scratch_ / "error";
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, error.c_str(), O_WRONLY | O_CREAT, 0600);
    const int failure = ::posix_spawn(&id_, program.c_str(), &actions, nullptr, pointers.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    check<IoError>(failure == 0, program, "cannot be started");
  }
  ~Process() {
    if (id_ <= 0) return;
    ::kill(id_, SIGKILL);
    ::waitpid(id_, nullptr, 0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// What it has written to standard output so far.
  std::string output() const { return std::filesystem::exists(scratch_ / "out") ? read_file(scratch_ / "out") : ""; }
  /// Leaves it `bytes` of memory beyond what it has now: a program that starts with too little may not get far enough.
  void limit_memory(std::size_t bytes) const {
    std::ifstream sizes("/proc/" + std::to_string(id_) + "/statm");
    rlim_t pages = 0;
    sizes >> pages;
    const rlim_t most = pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + bytes;
    const rlimit limit{most, most};
    check<IoError>(pages > 0 && ::prlimit(id_, RLIMIT_AS, &limit, nullptr) == 0, "Process", "cannot limit memory");
  }
  /// Does nothing to a process that has ended already.
  void signal(int number) const { ::kill(id_, number); }
  /// Whether it goes on running; it stays to be waited for in either case.
  bool is_running() const {
    siginfo_t information{};
    return ::waitid(P_PID, static_cast<id_t>(id_), &information, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           information.si_pid == 0;
  }
  /// Waits until `condition` holds or the process has ended. Returns whether it held.
  template <class Condition>
  bool wait_until(Condition&& condition) const {
    while (true) {
      const bool running = is_running();
      if (condition()) return true;
      if (!running) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  CommandResult wait() {
    int status = 0;
    while (::waitpid(id_, &status, 0) < 0 && errno == EINTR) continue;
    id_ = 0;
    CommandResult result;
    result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result.out = read_file(scratch_ / "out");
    result.error = read_file(scratch_ / "error");
    return result;
  }

 private:
  TemporaryDirectory scratch_;
  pid_t id_ = 0;
};

}  // namespace tally::test
