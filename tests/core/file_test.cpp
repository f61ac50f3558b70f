#include "tally/core/io/file.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>

#include "tally/core/error.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_directory.h"

namespace file_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

TEST_CASE("read_file gives the bytes of regular files only", "[file]") {
  const TemporaryDirectory directory;
  const std::string bytes("a\0b\r\n", 5);
  CHECK(read_file(directory.write("plain", bytes)) == bytes);
  CHECK(read_file(directory.write("empty", "")).empty());
  CHECK(read_file(directory.path() / "plain", 5) == bytes);
  CHECK_THAT(message_of<IoError>([&] { read_file(directory / "plain", 4); }),
             Contains("plain] needs at most 4 bytes; got 5"));
  CHECK_THAT(message_of<IoError>([&] { read_file(directory / "missing"); }),
             Contains("missing] cannot open: No such file or directory"));
  CHECK_THAT(message_of<IoError>([&] { read_file(directory.path()); }),
             Contains("needs a regular file; got a directory"));
  CHECK_THAT(message_of<IoError>([&] { read_file("/dev/zero"); }), Contains("needs a regular file; got a device"));
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(message_of<IoError>([&] { read_file(directory / "pipe"); }), Contains("got a pipe"));
}

TEST_CASE("an atomic write replaces a file whole, readable to others", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  const mode_t before = ::umask(022);
  write_file_atomically(path, "first");
  write_file_atomically(path, "second, longer");
  ::umask(before);
  CHECK(read_file(path) == "second, longer");
  CHECK(directory.entries() == 1);
  CHECK(std::filesystem::status(path).permissions() == std::filesystem::perms(0644));
  CHECK_THAT(message_of<IoError>([&] { write_file_atomically(directory.path(), ""); }), Contains("it is a directory"));
  CHECK_THAT(message_of<IoError>([&] { write_file_atomically("/dev/null", ""); }), Contains("it is a device"));
  CHECK_THAT(message_of<IoError>([&] { write_file_atomically(directory / "none/file", "x"); }),
             Contains("cannot open"));
  CHECK_THAT(message_of<IoError>([&] { write_file_atomically(path / "file", "x"); }), Contains("Not a directory"));
}

TEST_CASE("an atomic write goes to where a link leads, and the link stays", "[file]") {
  namespace fs = std::filesystem;
  const TemporaryDirectory directory;
  fs::create_directory(directory / "far");
  fs::create_symlink("far/file", directory / "link");
  fs::create_symlink("link", directory / "link of link");
  for (const char* text : {"made", "replaced"}) {
    write_file_atomically(directory / "link of link", text);
    CHECK(fs::is_symlink(directory / "link"));
    CHECK_FALSE(fs::is_symlink(directory / "far/file"));
    CHECK(read_file(directory / "far/file") == text);
  }
  CHECK(std::distance(fs::directory_iterator(directory / "far"), fs::directory_iterator()) == 1);
  CHECK(directory.entries() == 3);
  // As /dev/stdout: a link of the system's to an open file, by its name or to one that has none.
  const detail::FileDescriptor open(directory / "far/file", O_RDWR);
  const fs::path through = "/proc/self/fd/" + std::to_string(open.get());
  write_file_atomically(through, "through");
  CHECK(read_file(directory / "far/file") == "through");
  const detail::FileDescriptor gone(directory / "gone", O_RDWR | O_CREAT);
  fs::remove(directory / "gone");
  CHECK_THAT(message_of<IoError>([&] { write_file_atomically("/proc/self/fd/" + std::to_string(gone.get()), "x"); }),
             Contains("has no name"));
  CHECK(directory.entries() == 3);
  fs::create_symlink("circle", directory / "circle");
  CHECK_THAT(message_of<IoError>([&] { write_file_atomically(directory / "circle", "x"); }), Contains("circle"));
}

TEST_CASE("an atomic write that fails leaves the old file and no temporary", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  write_file_atomically(path, "precious");
  {
    const FileSizeLimit limit(1000);
    CHECK_THAT(message_of<IoError>([&] { write_file_atomically(path, std::string(1001, 'x')); }),
               Contains("cannot write: File too large"));
    CHECK_NOTHROW(write_file_atomically(directory / "fits", std::string(1000, 'x')));
  }
  { AtomicFile(path).write("never committed"); }
  CHECK(directory.entries() == 2);
  CHECK(read_file(path) == "precious");
  CHECK(directory.entries() == 2);
}

TEST_CASE("temporaries of processes that are gone are removed, others stay", "[file]") {
  const TemporaryDirectory directory;
  const std::string pid = std::to_string(::getpid());
  directory.write(".tmp-file-" + pid + "-1-0", "an earlier process with this id");
  directory.write(".tmp-file-4194305-1-0", "no process has so large an id");
  directory.write(".tmp-file-1-1-0", "a running process");
  directory.write(".tmp-file-b-4194305-1-0", "of another file");
  directory.write(".tmp-file-4194305", "not a temporary of ours");
  const AtomicFile alive(directory / "file");
  write_file_atomically(directory / "file", "x");
  CHECK(directory.entries() == 5);
  CHECK_FALSE(std::filesystem::exists(directory / (".tmp-file-" + pid + "-1-0")));
  CHECK_FALSE(std::filesystem::exists(directory / ".tmp-file-4194305-1-0"));
}

TEST_CASE("a line writer appends, and drops a torn last line", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory / "log";
  {
    LineWriter writer(path);
    writer.write_line("one");
    writer.write_line("");
    writer.sync();
  }
  { LineWriter(path).write_line("three"); }
  CHECK(read_file(path) == "one\n\nthree\n");
  directory.write("log", "one\ntwo\ntor");
  { LineWriter(path).write_line("three"); }
  CHECK(read_file(path) == "one\ntwo\nthree\n");
  // The torn line is longer than a block of the backward search, and then the only one.
  directory.write("log", "one\n" + std::string(200000, 'x'));
  { LineWriter writer(path); }
  CHECK(read_file(path) == "one\n");
  directory.write("log", std::string(200000, 'x'));
  { LineWriter writer(path); }
  CHECK(read_file(path).empty());
  directory.write("log", "old\n");
  { LineWriter(path, LineWriter::Mode::truncate).write_line("new"); }
  CHECK(read_file(path) == "new\n");
  CHECK_THAT(message_of<ValueError>([&] { LineWriter(path).write_line("a\nb"); }), Contains("without a newline"));
  CHECK_THAT(message_of<IoError>([&] { LineWriter writer(directory.path()); }), Contains("directory"));
}

TEST_CASE("a line that cannot be written is reported and leaves whole lines", "[file]") {
  const TemporaryDirectory directory;
  const auto path = directory / "log";
  LineWriter writer(path);
  writer.write_line("before");
  {
    const FileSizeLimit limit(100);
    CHECK_THAT(message_of<IoError>([&] { writer.write_line(std::string(200, 'x')); }), Contains("cannot write"));
  }
  writer.write_line("after");
  CHECK(read_file(path) == "before\nafter\n");
  LineWriter full("/dev/full");
  CHECK_THAT(message_of<IoError>([&] { full.write_line("x"); }), Contains("No space left on device"));
}

TEST_CASE("a writer killed at any moment leaves the old or the new file", "[file][slow]") {
  const TemporaryDirectory directory;
  const auto path = directory / "file";
  const std::string old_bytes(3 << 20, 'a'), new_bytes(2 << 20, 'b');
  write_file_atomically(path, old_bytes);
  bool saw_old = false, saw_new = false;
  // On a busy machine few children get as far as a commit: go on until both files were seen.
  for (int round = 0; round < 100 || (!(saw_old && saw_new) && round < 2000); ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (bool odd = false;; odd = !odd) write_file_atomically(path, odd ? old_bytes : new_bytes);
    }
    ::usleep(static_cast<useconds_t>(1000 + (round * 7919) % 20000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::string bytes = read_file(path);
    REQUIRE((bytes == old_bytes || bytes == new_bytes));
    REQUIRE(directory.entries() <= 2);  // The killed child's temporary at most: each child removes its predecessor's.
    (bytes == old_bytes ? saw_old : saw_new) = true;
  }
  CHECK(saw_old);
  CHECK(saw_new);
}

}  // namespace file_test
