#include "tally/core/io/line_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "tally/core/io/file.h"
#include "tally/core/io/gzip.h"
#include "tests/support/temporary_directory.h"

namespace line_reader_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  LineReader reader(path);
  std::vector<std::string> lines;
  for (std::string_view line; reader.next(line);) {
    lines.emplace_back(line);
    REQUIRE(reader.line_number() == static_cast<std::int64_t>(lines.size()));
  }
  std::string_view line;
  CHECK_FALSE(reader.next(line));
  return lines;
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("lines end with a newline or the file, with or without a carriage return", "[line_reader]") {
  const TemporaryDirectory directory;
  const auto read = [&](std::string_view text) { return lines_of(directory.write("f", text)); };
  CHECK(read("") == Lines{});
  CHECK(read("\n") == Lines{""});
  CHECK(read("a") == Lines{"a"});
  CHECK(read("a\n") == Lines{"a"});
  CHECK(read("a\n\nb") == Lines{"a", "", "b"});
  CHECK(read("a\r\nb\rc\r\n\r\n") == Lines{"a", "b\rc", ""});
  CHECK(read("\xEF\xBB\xBF"
             "a\n\xEF\xBB\xBF") == Lines{"a", "\xEF\xBB\xBF"});
  CHECK(read("\xEF\xBB\xBF") == Lines{});
  CHECK(read("\xEF\xBB") == Lines{"\xEF\xBB"});
  CHECK(read(std::string_view("a\0b\n", 4)) == Lines{std::string("a\0b", 3)});
  CHECK(read("\x1f\n") == Lines{"\x1f"});
}

TEST_CASE("lines across blocks come whole, plain and gzip'd alike", "[line_reader]") {
  const TemporaryDirectory directory;
  std::mt19937 random(3);
  Lines lines;
  std::string text;
  while (text.size() < (5u << 20)) {
    const std::size_t length = random() % 100 == 0 ? random() % 300000 : random() % 40;
    lines.emplace_back(length, static_cast<char>('a' + random() % 26));
    text += lines.back() + "\n";
  }
  CHECK(lines_of(directory.write("plain", text)) == lines);
  CHECK(lines_of(directory.write("one.gz", gzip(text))) == lines);
  const std::string cut =
      gzip(text.substr(0, 1234567)) + gzip("") + gzip(text.substr(1234567)) + std::string(512, '\0');
  CHECK(lines_of(directory.write("members.gz", cut)) == lines);
  CHECK(lines_of(directory.write("zeros.gz", gzip(std::string(8 << 20, '\n')))).size() == (8u << 20));
  CHECK(lines_of(directory.write("empty.gz", gzip(""))).empty());
}

TEST_CASE("a pipe is read like a file", "[line_reader]") {
  const TemporaryDirectory directory;
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);
  std::thread writer([&] {
    std::ofstream pipe(directory / "pipe", std::ios::binary);
    for (const char* part : {"\xEF", "\xBB\xBF", "a,", "b\r", "\nc"}) {
      pipe << part << std::flush;
      ::usleep(2000);
    }
  });
  const Lines lines = lines_of(directory / "pipe");
  writer.join();
  CHECK(lines == Lines{"a,b", "c"});
}

TEST_CASE("bad input names file and line", "[line_reader]") {
  const TemporaryDirectory directory;
  const auto refusal = [&](std::string_view bytes, std::size_t max_line = LineReader::kMaxLine) {
    directory.write("bad", bytes);
    return message_of<IoError>([&] {
      LineReader reader(directory / "bad", max_line);
      for (std::string_view line; reader.next(line);) {
      }
    });
  };
  std::string text;
  for (int i = 0; i < 100000; ++i) text += std::to_string(i * 2654435761u) + "\n";
  const std::string good = gzip(text);
  for (const std::size_t size : {std::size_t{2}, std::size_t{9}, std::size_t{30}, good.size() / 2, good.size() - 1}) {
    CHECK_THAT(refusal(good.substr(0, size)), Contains("bad:") && Contains("ends within its gzip data"));
  }
  CHECK_THAT(refusal(good.substr(0, 12)), Contains("bad:1] ends within"));
  CHECK_THAT(refusal(good.substr(0, good.size() - 1)), Contains("bad:100001] ends within"));
  CHECK_THAT(refusal(good + "more"), Contains("bad:100001] has bytes after its gzip data"));
  CHECK_THAT(refusal(good + std::string(3, '\0') + good), Contains("bytes after its gzip data"));
  std::string damaged = good;
  damaged[good.size() - 5] = static_cast<char>(damaged[good.size() - 5] ^ 1);
  CHECK_THAT(refusal(damaged), Contains("has damaged gzip data"));
  damaged = good;
  damaged[3] = '\xff';
  CHECK_THAT(refusal(damaged), Contains("damaged gzip data") || Contains("ends within"));

  CHECK(refusal("12345\n1234\n12345", 5) == "nothing was thrown");
  CHECK_THAT(refusal("12345\n1234\n123456", 5), Contains("bad:3] needs lines of at most 5 bytes"));
  CHECK_THAT(refusal("12345\n123456\n", 5), Contains("bad:2] needs lines of at most 5 bytes"));
  CHECK_THAT(refusal(gzip("\n" + std::string(40 << 20, 'x'))), Contains("bad:2] needs lines of at most 16777216"));
  CHECK_THAT(message_of<IoError>([&] { LineReader reader(directory / "none"); }), Contains("none] cannot open"));
  CHECK_THAT(message_of<IoError>([&] { LineReader reader(directory.path()); }), Contains("got a directory"));
  directory.write("f", "a\nb\n");
  LineReader reader(directory / "f");
  std::string_view line;
  reader.next(line);
  reader.next(line);
  CHECK_THAT(message_of<IoError>([&] { reader.refuse("needs ", 3, " columns"); }), Contains("f:2] needs 3 columns"));
}

TEST_CASE("gzip data with flipped bytes is read or refused, never worse", "[line_reader]") {
  const TemporaryDirectory directory;
  const std::string good = gzip("1,2,3\n4,5,6\n") + gzip("7,8,9\n");
  std::mt19937 random(4);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = good;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    if (i % 4 == 0) bytes.resize(random() % bytes.size());
    try {
      lines_of(directory.write("f", bytes));
    } catch (const IoError&) {
      ++refused;
    }
  }
  CHECK(refused > 500);
}

TEST_CASE("ten million lines are read whole", "[line_reader][slow]") {
  const TemporaryDirectory directory;
  std::string text;
  for (int i = 0; i < 10'000'000; ++i) text += "12345,678,4.5,1112486027\n";
  const auto path = directory.write("big.csv", text);
  LineReader reader(path);
  std::size_t bytes = 0;
  for (std::string_view line; reader.next(line);) bytes += line.size() + 1;
  CHECK(bytes == text.size());
  CHECK(reader.line_number() == 10'000'000);
}

TEST_CASE("who waits for a pipe can be stopped, and else reads it whole", "[line_reader]") {
  const TemporaryDirectory directory;
  const std::string pipe = directory / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  int asked = 0;
  const auto after = [&](int times) { return [&asked, times] { return ++asked > times; }; };
  std::string_view line;
  {
    LineReader nobody_writes(pipe, LineReader::kMaxLine, after(2));
    CHECK_THROWS_AS(nobody_writes.next(line), Stopped);
    CHECK(asked == 3);
  }
  {
    const detail::FileDescriptor writer(pipe, O_RDWR);
    asked = 0;
    LineReader quiet(pipe, LineReader::kMaxLine, after(3));
    REQUIRE(::write(writer.get(), "a\nhalf a", 8) == 8);
    REQUIRE(quiet.next(line));
    CHECK(line == "a");
    CHECK_THROWS_AS(quiet.next(line), Stopped);
  }
  // A writer that comes late, pauses and goes.
  std::thread late([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    detail::FileDescriptor writer(pipe, O_WRONLY);
    for (int i = 0; i < 3; ++i) {
      writer.write_all("line\nli");
      std::this_thread::sleep_for(std::chrono::milliseconds(120));
      writer.write_all("ne\n");
    }
  });
  LineReader reader(pipe, LineReader::kMaxLine, [] { return false; });
  int lines = 0;
  while (reader.next(line)) {
    CHECK(line == "line");
    ++lines;
  }
  late.join();
  CHECK(lines == 6);
  // A file is never waited for.
  asked = 0;
  LineReader file(directory.write("f", "a\nb"), LineReader::kMaxLine, after(0));
  CHECK((file.next(line) && file.next(line) && !file.next(line)));
  CHECK(asked == 0);
}

}  // namespace line_reader_test
