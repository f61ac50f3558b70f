// tally bench sessions: what an event costs as a history grows, and what many users cost.
#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/recsys/config/model_config.h"
#include "tally/recsys/sessions/sessions.h"
#include "tools/commands.h"
#include "tools/print.h"
#include "tools/timing.h"

namespace tally::tools {
namespace {

using namespace recsys;

constexpr std::size_t kBatch = 4096;    // events of many users at once
constexpr std::size_t kAnswered = 256;  // users at once

struct BenchSessionsArguments {
  Tables tables = standard();
  std::string model = "lisa";
  std::map<std::string, std::string> settings{{"hidden_size", "128"}, {"n_layers", "1"}};
  std::int64_t items = 10'000, users = 100'000, events_per_user = 10, early = 100, late = 1'000'000, rounds = 301;
  int threads = num_threads();
};

ModelConfig model_of(const BenchSessionsArguments& arguments) {
  ModelConfig model(arguments.model, arguments.tables);
  for (const auto& [key, value] : arguments.settings) model.set(key, parse_json(value, key));
  return model;
}

/// Memory of this process that is in use, in bytes; 0 where the system does not say.
double resident_bytes() {
  std::ifstream in("/proc/self/statm");
  double pages = 0, resident = 0;
  return in >> pages >> resident ? resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) : 0;
}

class Workload {
 public:
  explicit Workload(const BenchSessionsArguments& arguments)
      : arguments_(arguments),
        model_(make_sequence_model(model_of(arguments), arguments.items, RngKey{1})->recurrent()) {
    for (std::int64_t i = 0; i < arguments.items; ++i) names_.add("item" + std::to_string(i));
  }

  void print_model() const {
    print(fmt::format("{} ({}), {} items, width {}, random weights, {} threads\n\n", model_->name(), model_->layout(),
                      arguments_.items, model_->width(), num_threads()));
  }

  /// The event after `early` and the one after `late` of a user, turn by turn. Their items are every other one of the
  /// catalogue, so that the old user too has unseen items to be ranked.
  void compare_ages() {
    Sessions sessions(model_, names_);
    const std::string young = "young", old = "old";
    append_even_items(sessions, young, arguments_.early);
    append_even_items(sessions, old, arguments_.late);
    ModelState early = *sessions.state(young), late = *sessions.state(old);
    std::vector<float> row(static_cast<std::size_t>(model_->width()));
    const auto step = [&](ModelState& state) {
      return seconds_of([&] { model_->step(state, even_item(), row, next_time()); });
    };
    const auto serve = [&](const std::string& user) {
      const std::string_view item = names_.name(even_item());
      return seconds_of([&] {
        sessions.append(user, item, next_time());
        sessions.recommend(user, 10);
      });
    };
    print_ratio(
        "event and hidden row", [&] { return step(early); }, [&] { return step(late); });
    print_ratio(
        "event and top 10 of all unseen items", [&] { return serve(young); }, [&] { return serve(old); });
  }

  /// Many users at once.
  void hold_many() {
    const double before = resident_bytes();
    Sessions sessions(model_, names_);
    std::vector<std::string> users;
    for (std::int64_t u = 0; u < arguments_.users; ++u) users.push_back("user" + std::to_string(u));
    const double with_names = resident_bytes() - before;
    // Medians of batches: other programs may use the machine meanwhile.
    std::vector<double> spent;
    std::vector<UserEvent> batch;
    for (std::int64_t e = 0; e < arguments_.events_per_user; ++e) {
      for (const std::string& user : users) {
        batch.push_back({user, next_item(), next_time()});
        if (batch.size() < kBatch && &user != &users.back()) continue;
        const double seconds = seconds_of([&] { sessions.append(batch); });
        spent.push_back(seconds / static_cast<double>(batch.size()));
        batch.clear();
      }
    }
    const double count = static_cast<double>(arguments_.users);
    print(fmt::format("\n{} users, {} events each: {:.0f} bytes a session (process: {:.0f}), {:.0f} events/s\n",
                      arguments_.users, arguments_.events_per_user, static_cast<double>(sessions.bytes()) / count,
                      (resident_bytes() - before - with_names) / count, 1 / median(spent)));
    std::vector<double> answering;
    for (std::size_t begin = 0; begin + kAnswered <= users.size() && answering.size() < 100; begin += kAnswered) {
      const std::vector<std::string_view> some(users.begin() + static_cast<std::ptrdiff_t>(begin),
                                               users.begin() + static_cast<std::ptrdiff_t>(begin + kAnswered));
      answering.push_back(seconds_of([&] { sessions.recommend(some, 10); }) / kAnswered);
    }
    if (answering.empty()) return;
    print(fmt::format("top 10 of all unseen items: {:.0f} users/s\n", 1 / median(answering)));
  }

 private:
  std::uint64_t draw(std::int64_t below) {
    return uniform_below(RngKey{7}, static_cast<std::uint64_t>(drawn_++), 0, static_cast<std::uint64_t>(below));
  }
  std::string_view next_item() { return names_.name(static_cast<std::int32_t>(draw(arguments_.items))); }
  /// For models that read times: an event a minute, whoever's it is.
  double next_time() { return 60.0 * static_cast<double>(drawn_); }
  std::int32_t even_item() { return 2 * static_cast<std::int32_t>(draw((arguments_.items + 1) / 2)); }

  void append_even_items(Sessions& sessions, const std::string& user, std::int64_t count) {
    std::vector<UserEvent> batch;
    for (std::int64_t i = 0; i < count; ++i) {
      batch.push_back({user, names_.name(even_item()), next_time()});
      if (batch.size() < kBatch && i + 1 < count) continue;
      sessions.append(batch);
      batch.clear();
    }
  }

  void print_ratio(std::string_view what, const auto& early, const auto& late) const {
    std::vector<double> first, second, ratios;
    for (int i = 0; i < 20; ++i) early(), late();
    for (std::int64_t i = 0; i < arguments_.rounds; ++i) {
      // Whoever comes second finds the model in cache: they take turns.
      double a = 0, b = 0;
      if (i % 2 == 0) a = early();
      b = late();
      if (i % 2 != 0) a = early();
      first.push_back(a);
      second.push_back(b);
      ratios.push_back(b / a);
    }
    print(fmt::format("{}: {:.1f} us after {} events, {:.1f} us after {}; ratio {:.3f} (medians of {})\n", what,
                      median(first) * 1e6, arguments_.early, median(second) * 1e6, arguments_.late, median(ratios),
                      arguments_.rounds));
  }

  BenchSessionsArguments arguments_;
  std::shared_ptr<const RecurrentModel> model_;
  IdMap names_;
  std::int64_t drawn_ = 0;
};

void bench_sessions(const BenchSessionsArguments& arguments) {
  for (const std::int64_t number : {arguments.items, arguments.users, arguments.events_per_user, arguments.early,
                                    arguments.late, arguments.rounds, std::int64_t{arguments.threads}}) {
    check<ConfigError>(number >= 1, "bench sessions", "needs numbers of at least 1; got ", number);
  }
  set_num_threads(arguments.threads);
  Workload workload(arguments);
  workload.print_model();
  workload.compare_ages();
  workload.hold_many();
}

}  // namespace

void add_bench_sessions(CLI::App& app, const CommandContext& context) {
  auto arguments = std::make_shared<BenchSessionsArguments>();
  arguments->tables = context.tables;
  CLI::App* command = app.get_subcommand("bench")->add_subcommand(
      "sessions", "What an event costs as a user's history grows, and what many users cost");
  const auto option = [&](const char* name, auto& value, const char* what) {
    command->add_option(name, value, what)->capture_default_str();
  };
  option("--model", arguments->model, "lisa, gru4rec or sasrec");
  const auto setting = [&](const char* name, const std::string& key, const char* what) {
    const auto set = [arguments, key](const std::string& value) { arguments->settings[key] = value; };
    CLI::Option* added = command->add_option_function<std::string>(name, set, what);
    const auto usual = arguments->settings.find(key);
    if (usual != arguments->settings.end()) added->default_str(usual->second);
  };
  const auto set_attention = [arguments](const std::string& value) {
    arguments->settings["attention"] = value.starts_with('{') ? value : Json(value).dump();
  };
  command->add_option_function<std::string>("--attention", set_attention,
                                            "Of sasrec: the name of an attention, or an object with its settings");
  setting("--width", "hidden_size", "Of embeddings and hidden rows");
  setting("--layers", "n_layers", "Number of layers");
  setting("--window", "MAX_ITEM_LIST_LENGTH", "Longest history that the model reads");
  setting("--codebooks", "codebooks", "Of lisa");
  setting("--codewords", "codewords", "Of each codebook of lisa");
  setting("--decay", "counts_decay", "Of counts of lisa, per event");
  option("--items", arguments->items, "Size of the catalogue");
  option("--users", arguments->users, "Sessions held at once");
  option("--events", arguments->events_per_user, "Events of each");
  option("--early", arguments->early, "Events of the young history");
  option("--late", arguments->late, "Events of the old history");
  option("--rounds", arguments->rounds, "Timings of each; medians are printed");
  option("--threads", arguments->threads, "Threads to use");
  command->callback([arguments] { bench_sessions(*arguments); });
}

}  // namespace tally::tools
