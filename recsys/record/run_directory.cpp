#include "tally/recsys/record/run_directory.h"

#include <chrono>
#include <ctime>

#include "tally/core/blas.h"
#include "tally/core/io/file.h"
#include "tally/core/io/reason.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/core/version.h"

namespace tally::recsys {

RunDirectory create_run_directory(const RunConfig& config) {
  std::string data = std::filesystem::path(config.data.path).parent_path().filename().string();
  if (data.empty()) data = std::filesystem::path(config.data.path).stem().string();
  constexpr std::size_t kMost = 100;  // bytes of a name that has others behind it, and a limit of 255
  if (data.size() > kMost) {
    data.resize(kMost);
    while (!data.empty() && static_cast<signed char>(data.back()) < 0) data.pop_back();  // not within a character
  }
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm utc{};
  gmtime_r(&now, &utc);
  char time[32];
  std::strftime(time, sizeof(time), "%Y%m%d-%H%M%S", &utc);
  const std::string name = detail::join(data, '_', config.model.name(), '_', config.train.seed, '_', time);
  std::error_code error;
  std::filesystem::create_directories(config.output, error);
  check<IoError>(!error, config.output, "cannot be created: ", reason_of(error.value()));
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const std::filesystem::path path =
        std::filesystem::path(config.output) / (attempt == 0 ? name : detail::join(name, '-', attempt));
    // Creating fails when another run has just taken the name.
    if (std::filesystem::create_directory(path, error)) {
      std::filesystem::create_directory(path / "checkpoints", error);
      check<IoError>(!error, path.string(), "cannot be created: ", reason_of(error.value()));
      return {path};
    }
    check<IoError>(!error, path.string(), "cannot be created: ", reason_of(error.value()));
  }
  fail<IoError>(config.output, "holds a thousand runs named ", name);
}

void make_run_directory(const RunDirectory& directory) {
  check<IoError>(!std::filesystem::exists(directory.config()), directory.path.string(), "holds a run already");
  std::error_code error;
  std::filesystem::create_directories(directory.path / "checkpoints", error);
  check<IoError>(!error, directory.path.string(), "cannot be created: ", reason_of(error.value()));
}

Json recorded_config(RunConfig config) {
  for (std::string* path : {&config.data.path, &config.data.titles, &config.train.start_from}) {
    if (!path->empty()) *path = std::filesystem::absolute(*path).lexically_normal().string();
  }
  return to_json(config);
}

Json environment() {
  return Json::object({{"version", version_description()},
                       {"blas", blas::description()},
                       {"simd", simd_target()},
                       {"threads", num_threads()},
                       {"denormals_flushed", denormals_flushed()}});
}

Json to_json(const Evaluation& evaluation) {
  Json json = Json::object({{"ranker", evaluation.ranker},
                            {"protocol", evaluation.protocol},
                            {"part", name_of(evaluation.part)},
                            {"ranking", evaluation.ranking},
                            {"users", static_cast<std::int64_t>(evaluation.ranks.size())},
                            {"unreachable", evaluation.unreachable},
                            {"tied", evaluation.tied}});
  for (const Metrics& metrics : evaluation.metrics) {
    const std::string at = detail::join('@', metrics.k);
    json.set("HR" + at, metrics.hit_rate);
    json.set("NDCG" + at, metrics.ndcg);
    json.set("MRR" + at, metrics.mrr);
  }
  return json;
}

void write_ranks(const std::filesystem::path& path, const Split& split, const Evaluation& evaluation) {
  std::string text = "user_id\titem_id\tbest_rank\tworst_rank\thistory_length\n";
  for (std::size_t i = 0; i < evaluation.targets.size(); ++i) {
    const Target& target = evaluation.targets[i];
    text += detail::join(split.data().users.name(target.user), '\t', split.data().items.name(split.item(target)), '\t',
                         evaluation.ranks[i].best, '\t', evaluation.ranks[i].worst, '\t', split.history(target).size(),
                         '\n');
  }
  write_file_atomically(path, text);
}

}  // namespace tally::recsys
