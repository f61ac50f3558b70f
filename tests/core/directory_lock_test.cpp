#include "tally/core/io/directory_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <functional>
#include <optional>

#include "tests/support/temporary_directory.h"
#include "tests/support/unprivileged.h"

namespace directory_lock_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

namespace fs = std::filesystem;

using MakeLock = DirectoryLock (*)(const fs::path&);
constexpr MakeLock kLocks[] = {&DirectoryLock::inside, &DirectoryLock::beside};

/// A process that does `work`, says so, and then waits to be killed.
class Child {
 public:
  explicit Child(const std::function<void()>& work) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    id_ = ::fork();
    REQUIRE(id_ >= 0);
    if (id_ == 0) {
      work();
      (void)(::write(ends[1], "x", 1) < 0);
      while (true) ::pause();
    }
    ::close(ends[1]);
    char byte;
    CHECK(::read(ends[0], &byte, 1) == 1);
    ::close(ends[0]);
  }
  ~Child() { kill(); }
  void kill() {
    if (id_ > 0) {
      ::kill(id_, SIGKILL);
      ::waitpid(id_, nullptr, 0);
    }
    id_ = 0;
  }
  pid_t id() const { return id_; }

 private:
  pid_t id_ = 0;
};

/// Whether a lock can be had in another process.
bool is_free_elsewhere(MakeLock make, const fs::path& directory) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      make(directory);
      ::_exit(0);
    } catch (const IoError&) {
      ::_exit(1);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST_CASE("a directory is locked by one holder at a time, whatever it is called", "[directory_lock]") {
  const TemporaryDirectory parent;
  const fs::path path = parent / "run";
  fs::create_directories(path / "sub");
  fs::create_directory_symlink("run", parent / "link");
  fs::create_directory_symlink(parent / "link", parent / "link of link");
  fs::create_directory_symlink(parent.path(), parent / "here");
  const fs::path before = fs::current_path();
  fs::current_path(parent.path());
  for (const MakeLock make : kLocks) {
    std::optional<DirectoryLock> lock(make(path));
    for (const fs::path& name : {path, fs::path(path.string() + "/"), fs::path("run"), fs::path("./run"),
                                 fs::path("run/sub/.."), fs::path("run/."), parent / "link", fs::path("link/"),
                                 parent / "link of link", fs::path("here/run"), fs::path("here/here/link/")}) {
      INFO(name);
      CHECK_THAT(message_of<IoError>([&] { make(name); }),
                 Contains("[" + name.string() + "]") && Contains("is being written by this process already"));
    }
    CHECK_FALSE(is_free_elsewhere(make, path));
    // Moving hands it on.
    DirectoryLock moved(std::move(*lock));
    lock.reset();
    CHECK_FALSE(is_free_elsewhere(make, path));
    // Another directory is another lock, and a lock that is given another gives up its own.
    moved = make(path / "sub");
    CHECK(is_free_elsewhere(make, path));
    CHECK_FALSE(is_free_elsewhere(make, path / "sub"));
  }
  fs::current_path(before);
  CHECK(is_free_elsewhere(&DirectoryLock::inside, path));
  CHECK_FALSE(fs::exists(path / ".lock"));
  CHECK_FALSE(fs::exists(parent / ".lock-run"));
}

TEST_CASE("a lock dies with its process, and its message names it", "[directory_lock]") {
  const TemporaryDirectory parent;
  const fs::path path = parent / "run";
  fs::create_directory(path);
  for (const MakeLock make : kLocks) {
    for (int round = 0; round < 5; ++round) {
      std::optional<DirectoryLock> kept;
      Child child([&] { kept.emplace(make(path)); });
      CHECK_THAT(message_of<IoError>([&] { make(path); }),
                 Contains("is being written by another process (pid " + std::to_string(child.id()) + ")"));
      child.kill();
      CHECK(fs::exists(make == kLocks[0] ? path / ".lock" : parent / ".lock-run"));
      const auto begin = std::chrono::steady_clock::now();
      make(path);
      CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
    }
  }
  // The file of a process that is gone, or of one that could not write its id.
  for (const char* text : {"", "123456789\n", "no number"}) {
    parent.write("run/.lock", text);
    DirectoryLock::inside(path);
    CHECK_FALSE(fs::exists(path / ".lock"));
  }
}

TEST_CASE("a lock is neither inherited by programs nor ended by children", "[directory_lock]") {
  const TemporaryDirectory parent;
  const fs::path path = parent / "run";
  fs::create_directory(path);
  for (const MakeLock make : kLocks) {
    std::optional<DirectoryLock> lock(make(path));
    // A child that copied the object and destroys it changes nothing here.
    const pid_t child = ::fork();
    if (child == 0) {
      lock.reset();
      ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    CHECK_FALSE(is_free_elsewhere(make, path));
    // Nor does a child that goes on hold what its parent let go.
    Child going_on([] {});
    const pid_t program = ::fork();
    if (program == 0) {
      ::execl("/bin/sleep", "sleep", "30", nullptr);
      ::_exit(1);
    }
    lock.reset();
    CHECK(is_free_elsewhere(make, path));
    ::kill(program, SIGKILL);
    ::waitpid(program, nullptr, 0);
  }
}

TEST_CASE("many processes at one lock: one has it at a time", "[directory_lock]") {
  const TemporaryDirectory parent;
  const fs::path path = parent / "run";
  fs::create_directory(path);
  for (const MakeLock make : kLocks) {
    std::vector<pid_t> children;
    for (int c = 0; c < 4; ++c) {
      const pid_t child = ::fork();
      REQUIRE(child >= 0);
      if (child == 0) {
        int had = 0, broken = 0;
        while (had < 50) {
          try {
            const DirectoryLock lock = make(path);
            // Nobody else may be within: a file that must not be there yet.
            const int alone = ::open((parent / "alone").c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600);
            broken += alone < 0;
            ::unlink((parent / "alone").c_str());
            ::close(alone);
            ++had;
          } catch (const IoError&) {
          }
        }
        ::_exit(broken == 0 ? 0 : 1);
      }
      children.push_back(child);
    }
    for (const pid_t child : children) {
      int status = 0;
      ::waitpid(child, &status, 0);
      CHECK(WIFEXITED(status));
      CHECK(WEXITSTATUS(status) == 0);
    }
  }
}

TEST_CASE("a directory that may not be written is refused by either lock", "[directory_lock]") {
  const TemporaryDirectory parent;
  fs::permissions(parent.path(), fs::perms::all);
  const fs::path path = parent / "run", closed = parent / "closed";
  fs::create_directory(path);
  fs::create_directories(closed / "run");
  fs::permissions(closed / "run", fs::perms::all);
  for (const fs::path& each : {path, closed}) fs::permissions(each, fs::perms(0555));
  {
    const Unprivileged nobody;
    CHECK_THAT(message_of<IoError>([&] { DirectoryLock::inside(path); }),
               Contains("run] cannot be written") && Contains("Permission denied"));
    CHECK_THAT(message_of<IoError>([&] { DirectoryLock::beside(path); }),
               Contains("run] cannot be written") && Contains("Permission denied"));
    CHECK_THAT(message_of<IoError>([&] { DirectoryLock::beside(closed / "run"); }),
               Contains("closed/run] cannot be written") && Contains("Permission denied"));
    DirectoryLock::inside(closed / "run");
  }
  fs::permissions(closed, fs::perms::all);
}

TEST_CASE("what cannot be locked is refused with the reason", "[directory_lock]") {
  const TemporaryDirectory parent;
  // Where nobody may create files, the superuser included.
  CHECK_THAT(message_of<IoError>([] { DirectoryLock::inside("/sys"); }),
             Contains("[/sys] cannot be written, as /sys/.lock cannot be locked: cannot open: "));
  CHECK_THAT(message_of<IoError>([] { DirectoryLock::beside("/sys/state"); }),
             Contains("[/sys/state] cannot be written, as /sys/.lock-state cannot be locked: cannot open: "));
  CHECK_THAT(message_of<IoError>([&] { DirectoryLock::beside(parent / "none/state"); }), Contains("No such file"));
  CHECK_THAT(message_of<IoError>([&] { DirectoryLock::inside(parent / "none"); }), Contains("to be a directory"));
  const fs::path file = parent.write("file", "");
  CHECK_THAT(message_of<IoError>([&] { DirectoryLock::inside(file); }), Contains("to be a directory"));
  for (const char* name : {"", "/"}) CHECK_THROWS_AS(DirectoryLock::beside(name), IoError);
  fs::create_symlink("round", parent / "circle");
  fs::create_symlink("circle", parent / "round");
  CHECK_THAT(message_of<IoError>([&] { DirectoryLock::beside(parent / "round"); }), Contains("circle of symbolic"));
  // A link to what is not there yet: the lock lies where the directory will.
  fs::create_directory(parent / "far");
  fs::create_symlink("far/state", parent / "dangling");
  {
    const DirectoryLock lock = DirectoryLock::beside(parent / "dangling");
    CHECK(fs::exists(parent / "far/.lock-state"));
    CHECK_THROWS_AS(DirectoryLock::beside(parent / "far/state"), IoError);
  }
  // Something of the user's bears the name: it is not taken, and stays.
  parent.write("far/.lock", std::string(1000, 'x'));
  CHECK_THAT(message_of<IoError>([&] { DirectoryLock::inside(parent / "far"); }), Contains("no lock file"));
  CHECK(fs::file_size(parent / "far/.lock") == 1000);
  fs::remove(parent / "far/.lock");
  parent.write("mine", "text");
  fs::create_symlink("../mine", parent / "far/.lock");
  CHECK_THROWS_AS(DirectoryLock::inside(parent / "far"), IoError);
  fs::remove(parent / "far/.lock");
  REQUIRE(::mkfifo((parent / "far/.lock").c_str(), 0600) == 0);
  CHECK_THAT(message_of<IoError>([&] { DirectoryLock::inside(parent / "far"); }), Contains("a pipe"));
}

}  // namespace directory_lock_test
