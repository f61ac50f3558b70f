// tally bench reading: how fast interactions are read from text.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "tally/core/io/file.h"
#include "tools/commands.h"
#include "tools/print.h"
#include "tools/reading_benchmark.h"
#include "tools/timing.h"

namespace tally::tools {
namespace {

/// A file without a name: it is gone at the end, however that comes.
class TemporaryFile {
 public:
  TemporaryFile()
      : file_(std::filesystem::temp_directory_path() / detail::temporary_name("tally-bench-reading"),
              O_RDWR | O_CREAT | O_EXCL, 0600) {
    ::unlink(file_.path().c_str());
  }
  /// Where it can be opened as long as this object lives.
  std::filesystem::path path() const { return fmt::format("/proc/self/fd/{}", file_.get()); }

 private:
  detail::FileDescriptor file_;
};

void bench_reading(const RandomRatings& ratings, int rounds) {
  for (const std::int64_t number : {ratings.rows, ratings.users, ratings.items, std::int64_t{rounds}}) {
    check<ConfigError>(number >= 1, "bench reading", "needs numbers of at least 1; got ", number);
  }
  const TemporaryFile file;
  write_random_ratings(file.path(), ratings);
  recsys::Interactions data;
  const ReadingFigures figures = measure_reading(file.path(), rounds, data);
  const double megabytes = static_cast<double>(std::filesystem::file_size(file.path())) * 1e-6;
  const double read = median(figures.read), scan = median(figures.scan), rows = static_cast<double>(ratings.rows);
  print(fmt::format("{} rows, {:.0f} MB, {} users, {} items; medians of {}\n", data.size(), megabytes, data.num_users(),
                    data.num_items(), rounds));
  print(
      fmt::format("read: {:.2f} s, {:.2f} million rows/s, {:.0f} MB/s\n", read, rows * 1e-6 / read, megabytes / read));
  print(fmt::format("lines counted: {:.2f} s, {:.0f} MB/s\n", scan, megabytes / scan));
}

}  // namespace

void add_bench_reading(CLI::App& app, const CommandContext&) {
  auto ratings = std::make_shared<RandomRatings>();
  auto rounds = std::make_shared<int>(3);
  CLI::App* command = app.get_subcommand("bench")->add_subcommand(
      "reading", "How fast a text file of ratings is read, beside a scan that counts its lines");
  command->add_option("--rows", ratings->rows, "Of the file, which is drawn and removed again")->capture_default_str();
  command->add_option("--users", ratings->users, "Different users")->capture_default_str();
  command->add_option("--items", ratings->items, "Different items")->capture_default_str();
  command->add_option("--rounds", *rounds, "Timings of each; medians are printed")->capture_default_str();
  command->callback([=] { bench_reading(*ratings, *rounds); });
}

}  // namespace tally::tools
