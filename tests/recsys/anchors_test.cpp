// Popularity and first-order Markov on real data sets against published counts (full ranking, leave-one-out, the whole
// history filtered, ties by expectation). No training is involved, so four decimals must agree.
#include <catch2/catch.hpp>
#include <filesystem>
#include <unordered_map>

#include "tally/recsys/baselines/markov.h"
#include "tally/recsys/baselines/popularity.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/data/statistics.h"
#include "tally/recsys/evaluation/evaluate.h"

namespace tally::recsys::anchors_test {
namespace {

const std::filesystem::path kData = TALLY_SOURCE_DIR "/../shared/data";

/// Whether the file of a data set that may not be shipped is here; says so when it is not.
bool present(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) return true;
  WARN("skipped: " << path << " is not here");
  return false;
}

struct Expected {
  double hit_rate, ndcg;
};

Evaluation check_anchor(const Ranker& ranker, const Split& split, const Expected& expected,
                        const EvaluationOptions& options = {}) {
  const Evaluation result = evaluate(ranker, split, Part::test, options);
  INFO(result.to_text());
  CHECK(result.at(10).hit_rate == Approx(expected.hit_rate).margin(0.00005).epsilon(0));
  CHECK(result.at(10).ndcg == Approx(expected.ndcg).margin(0.00005).epsilon(0));
  return result;
}

void check_anchors(const Interactions& data, const Expected& popularity, const Expected& markov,
                   std::int64_t unreachable) {
  const Split split = leave_one_out(data);
  check_anchor(Popularity(split), split, popularity);
  CHECK(check_anchor(Markov(split), split, markov).unreachable == unreachable);
}

/// A data set of the collection, in its rows' order or by a column.
Interactions read(const std::string& name, const std::string& order_column = "") {
  ReadOptions options;
  options.order_column = order_column;
  return read_interactions(kData / name / "interactions.tsv.gz", options);
}

ReadOptions u_data_options() {
  ReadOptions options;
  options.format.columns = {"user_id", "item_id", "rating", "timestamp"};
  options.order_column = "timestamp";
  return options;
}

}  // namespace

TEST_CASE("anchors: MovieLens latest-small, as shipped", "[data]") {
  const Interactions data =
      read_interactions(TALLY_SOURCE_DIR "/examples/data/ml-latest-small/ratings.csv.gz", movielens_csv_options());
  const Statistics figures = statistics(data);
  CHECK(figures.users == 610);
  CHECK(figures.items == 9724);
  CHECK(figures.events == 100836);
  CHECK(figures.density == Approx(0.01700).margin(0.000005));
  CHECK(figures.median_length == Approx(70.5));
  CHECK(figures.longest == 2698);
  const Split split = leave_one_out(data);
  check_anchor(Markov(split), split, {0.0738, 0.0471});
}

TEST_CASE("anchors: MovieLens 100K", "[data]") {
  if (!present(kData / "ml-100k/u.data")) return;
  ReadOptions options = u_data_options();
  const Interactions data = read_interactions(kData / "ml-100k/u.data", options);
  check_anchors(data, {0.0848, 0.0441}, {0.1448, 0.0768}, 3);
  const Split split = leave_one_out(data);
  check_anchor(Popularity(split), split, {0.0498, 0.0225}, {.seen = SeenFilter::none});
  check_anchor(Markov(split), split, {0.1103, 0.0555}, {.seen = SeenFilter::none});
  const Statistics figures = statistics(data);
  CHECK(figures.tied_last_users == 415);
  CHECK(static_cast<double>(figures.tied_pairs) / static_cast<double>(figures.events) == Approx(0.506).margin(0.0005));

  options.order.ties = TieRule::item_id;
  check_anchors(read_interactions(kData / "ml-100k/u.data", options), {0.0498, 0.0252}, {0.1463, 0.0807}, 3);
}

TEST_CASE("anchors: MovieLens 100K, sorted file", "[data]") {
  if (!present(kData / "ml-100k/interactions.tsv.gz")) return;
  check_anchors(read("ml-100k"), {0.0848, 0.0441}, {0.1448, 0.0768}, 3);
  check_anchors(read("ml-100k", "timestamp"), {0.0848, 0.0441}, {0.1448, 0.0768}, 3);
}

TEST_CASE("anchors: MovieLens 1M", "[data]") {
  if (!present(kData / "ml-1m")) return;
  check_anchors(read("ml-1m", "position_ties_by_item"), {0.0353, 0.0174}, {0.2139, 0.1300}, 0);
  check_anchors(read("ml-1m", "position"), {0.0369, 0.0180}, {0.2144, 0.1259}, 0);
}

TEST_CASE("anchors: Amazon Beauty, 5-core", "[data]") {
  if (!present(kData / "amazon-beauty")) return;
  check_anchors(read("amazon-beauty"), {0.0115, 0.0054}, {0.0668, 0.0439}, 138);
}

TEST_CASE("anchors: Amazon Video Games", "[data]") {
  if (!present(kData / "amazon-video-games")) return;
  check_anchors(read("amazon-video-games", "position"), {0.0190, 0.0099}, {0.0736, 0.0445}, 1167);
}

TEST_CASE("anchors: Amazon Beauty of SASRec and of BERT4Rec", "[data][slow]") {
  if (!present(kData / "amazon-beauty-bert4rec") || !present(kData / "amazon-beauty-sasrec")) return;
  check_anchors(read("amazon-beauty-bert4rec"), {0.0078, 0.0035}, {0.0424, 0.0287}, 4018);
  check_anchors(read("amazon-beauty-sasrec"), {0.0076, 0.0034}, {0.0397, 0.0268}, 4828);
}

TEST_CASE("git's name of MovieLens 1M is that of SASRec's text file", "[data]") {
  if (!present(kData / "ml-1m/sasrec_user_ids.tsv")) return;
  const auto ids = [](const std::filesystem::path& path) {
    DelimitedRows rows(path);
    std::unordered_map<std::string, std::string> map;
    while (rows.next()) map.emplace(rows.field(0), rows.field(1));
    return map;
  };
  const auto user_ids = ids(kData / "ml-1m/sasrec_user_ids.tsv");
  const auto item_ids = ids(kData / "ml-1m/sasrec_item_ids.tsv");
  Interactions data = read("ml-1m", "position");
  IdMap users;
  IdMap items;
  for (std::int32_t i = 0; i < data.num_users(); ++i) users.add(user_ids.at(std::string(data.users.name(i))));
  for (std::int32_t i = 0; i < data.num_items(); ++i) items.add(item_ids.at(std::string(data.items.name(i))));
  data.users = users;
  data.items = items;
  CHECK(git_blob_id(data) == "9ab8e3edb8742f8d8cc4911e3dee25e82a6fcc24");
}

TEST_CASE("git's names of published Amazon files", "[data]") {
  if (!present(kData / "amazon-video-games")) return;
  CHECK(git_blob_id(read("amazon-video-games")) == "f576455c76008a2c02a178c9d4ee930be632af89");
  CHECK(git_blob_id(read("amazon-beauty-sasrec")) == "cee2ab468d220772a9dfefed9aa9c492dc9b3418");
  CHECK(git_blob_id(read("amazon-beauty-bert4rec")) == "16718a33ebdb33504f257421b18ae8bf3ddfe327");
}

TEST_CASE("popularity among sampled negatives is what was published", "[data]") {
  // Single draws, so the published figures hold to about .005. SASRec's evaluator: outside the training items,
  // optimistic.
  struct Case {
    const char* data;
    const char* order_column;
    Expected uniform, popular;
  };
  for (const Case& each : {Case{"ml-1m", "position", {.435, .242}, {.127, .057}},
                           Case{"amazon-video-games", "", {.476, .278}, {.089, .043}},
                           Case{"amazon-beauty", "", {.289, .149}, {.055, .026}}}) {
    if (!present(kData / each.data / "interactions.tsv.gz")) continue;
    const Interactions data = read(each.data, each.order_column);
    const Split split = leave_one_out(data);
    for (const bool popular : {false, true}) {
      const auto distribution =
          popular ? CandidateSampling::Distribution::popularity : CandidateSampling::Distribution::uniform;
      EvaluationOptions options;
      options.sampled = CandidateSampling{.distribution = distribution, .exclude = CandidateSampling::Exclude::all};
      const Evaluation result = evaluate(Popularity(split), split, Part::test, options);
      INFO(each.data << '\n' << result.to_text());
      const Expected expected = popular ? each.popular : each.uniform;
      CHECK(result.at(10).hit_rate == Approx(expected.hit_rate).margin(.005).epsilon(0));
      CHECK(result.at(10).ndcg == Approx(expected.ndcg).margin(.005).epsilon(0));
    }
  }
}

}  // namespace tally::recsys::anchors_test
