#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/io/file.h"
#include "tally/recsys/study/measurements.h"
#include "tally/recsys/study/study.h"
#include "tally/recsys/study/study_tables.h"
#include "tests/support/temporary_directory.h"

namespace study_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

/// A study file with `members` behind name and base.
Study study_of(const std::string& members, const test::TemporaryDirectory& files) {
  files.write("base.json", R"({"data": {"path": "d.csv"}, "evaluation": {"topk": [5, 10]}})");
  return read_study(files.write("study.json", R"({"name": "s", "base": "base.json", )" + members + "}"));
}

std::string refusal_of(const std::string& members) {
  const test::TemporaryDirectory files;
  return test::message_of<ConfigError>([&] { study_of(members, files); });
}

/// A finished run of a study, as its directory would be: each user's rank, counted from 1.
void write_run(const RunDirectory& directory, const std::vector<int>& ranks, double hit_rate, const char* hash = "h",
               const char* mode = "full") {
  std::filesystem::create_directories(directory.path);
  write_file_atomically(directory.config(), detail::join(R"({"evaluation": {"mode": ")", mode, R"("}, "data": {}})"));
  write_file_atomically(directory.data(), detail::join(R"({"content_sha256": ")", hash, "\"}"));
  write_file_atomically(directory.training(), R"({"parameters": 1000, "baselines": []})");
  write_file_atomically(directory.metrics(),
                        R"({"event":"epoch","epoch":1,"loss":1,"seconds":2.5,"peak_memory":3000000})"
                        "\n");
  write_file_atomically(directory.test_metrics(),
                        detail::join(R"({"best_epoch": 1, "test": [{"ranker": "popularity", "HR@10": 0.125},
                                        {"ranker": "m", "protocol": "the protocol", "HR@10": )",
                                     hit_rate, "}]}"));
  std::string text = "user_id\titem_id\tbest_rank\tworst_rank\thistory_length\n";
  for (std::size_t i = 0; i < ranks.size(); ++i)
    text += detail::join('u', i, "\ti\t", ranks[i], '\t', ranks[i], "\t4\n");
  write_file_atomically(directory.ranks(), text);
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("a study is runs times grid, its paths relative to its file", "[study]") {
  const test::TemporaryDirectory files;
  const Study study = study_of(
      R"("runs": [{"name": "a"}, {"name": "b", "overrides": {"n_layers": 3, "train": {"epochs": 7}, "data.titles": "t.csv"}}],
         "grid": {"model.hidden_size": [16, 32], "model.norm": ["pre"]}, "seeds": [3, 1],
         "compare_to": "b-hidden_size=16-norm=pre", "metrics": ["Recall@5"],
         "plots": [{"x": "hidden_size", "y": "time", "series": "n_layers", "log_x": true}, {"x": "run", "y": "memory"}])",
      files);
  REQUIRE(study.runs.size() == 4);
  CHECK(study.runs[1].name == "a-hidden_size=32-norm=pre");
  const Json model = to_json(study.runs[2].config).at("model");
  CHECK(model.at("n_layers") == Json(3));
  CHECK(study.runs[2].config.train.epochs == 7);
  CHECK(model.at("hidden_size") == Json(16));
  CHECK(model.at("norm") == Json("pre"));
  CHECK(study.runs[0].config.data.path == (files / "d.csv").string());
  CHECK(study.runs[2].config.data.titles == (files / "t.csv").string());
  CHECK(study.seeds == std::vector<std::int64_t>{3, 1});
  CHECK(study.runs[0].with_seed(3, "out").train.seed == 3);
  CHECK(study.plots[0].x == "model.hidden_size");
  CHECK(study.plots[0].y == "seconds_per_epoch");
  CHECK(key_value(study.runs[2], "model.n_layers") == Json(3));
  CHECK(study_run_directory("o", study.runs[0], 3).path == "o/a-hidden_size=16-norm=pre-seed3");
  const Study written_here = read_study(
      files.write("inline.json", R"({"name": "i", "base": {"data": {"path": "x.csv"}}, "runs": [{"name": "only"}]})"));
  CHECK(written_here.runs[0].config.data.path == (files / "x.csv").string());
  CHECK(written_here.seeds == std::vector<std::int64_t>{42});
  CHECK(read_study(TALLY_SOURCE_DIR "/examples/study.json").runs.size() == 6);
}

TEST_CASE("a run of a study starts from an earlier one of the same seed", "[study]") {
  const test::TemporaryDirectory files;
  const Study study = study_of(R"("runs": [{"name": "a"}, {"name": "b", "start_from": "a"}])", files);
  CHECK(study.runs[1].with_seed(7, "out").train.start_from == study_run_directory("out", study.runs[0], 7).path);
  CHECK(study.runs[0].with_seed(7, "out").train.start_from == "");
}

TEST_CASE("a study that is wrong is refused with the place", "[study]") {
  const struct {
    const char* members;
    const char* message;
  } kCases[] = {
      {R"("seeds": [1])", "needs runs, a grid, or both"},
      {R"("runs": [])", "needs runs, a grid, or both"},
      {R"("runs": [{"name": "a", "override": {}}])", "did you mean \"overrides\"?"},
      {R"("runs": [{"name": "a"}, {"name": "a"}])", "\"a\" comes twice"},
      {R"("runs": [{"name": "../a"}])", "needs names of at most"},
      {R"("runs": [{"name": "a", "overrides": {"hidden_siz": 3}}])", "did you mean \"hidden_size\"? (in run \"a\")"},
      {R"("runs": [{"name": "a", "overrides": {"hidden_size": "wide"}}])", "(in run \"a\")"},
      {R"("runs": [{"name": "a"}], "seeds": [])", "[seeds] needs at least one"},
      {R"("runs": [{"name": "a"}], "seeds": [1, 1])", "[seeds] needs seeds that differ"},
      {R"("runs": [{"name": "a"}], "seeds": [-1])", "not negative"},
      {R"("runs": [{"name": "a"}], "compare_to": "b")", "[compare_to] needs the name of a run; got \"b\""},
      {R"("runs": [{"name": "b", "start_from": "a"}, {"name": "a"}])", "[start_from] needs the name of an earlier run"},
      {R"("runs": [{"name": "a", "start_from": "a"}])", "got \"a\" (in run \"a\")"},
      {R"("runs": [{"name": "a"}], "metrics": ["HR@20"])", "a K of evaluation.topk of run \"a\"; got \"HR@20\""},
      {R"("runs": [{"name": "a"}], "grid": {"hidden_size": []})", "[grid.hidden_size] needs a list"},
      {R"("runs": [{"name": "a"}], "grid": {"hidden_size": 3})", "[grid.hidden_size] needs a list"},
      {R"("runs": [{"name": "a"}], "plots": [{"x": "hiddn_size", "y": "HR@10"}])",
       "[plots[0]] \"hiddn_size\" is no key"},
      {R"("runs": [{"name": "a"}], "plots": [{"x": "run", "y": "speed"}])", "[plots[0].y] needs a metric of every run"},
      {R"("runs": [{"name": "a"}, {"name": "b"}], "plots": [{"x": "length", "y": "HR@10"}])", "two runs at the same"},
      {R"("runs": [{"name": "a"}], "plots": [{"x": "run", "y": "HR@10", "colour": 1}])", "colour"},
      {R"("runs": [{"name": "a"}], "plot": [])", "did you mean \"plots\"?"},
      {R"("runs": [{"name": "a"}, {"name": "b", "overrides": {"flush_denormals": false}}])", "flush_denormals"},
  };
  for (const auto& [members, message] : kCases) {
    INFO(members);
    CHECK_THAT(refusal_of(members), Contains(message));
  }
  const test::TemporaryDirectory files;
  CHECK_THROWS_AS(read_study(files / "none.json"), ConfigError);
  CHECK_THROWS_AS(read_study(files.write("a.json", "[]")), ConfigError);
  CHECK_THROWS_AS(read_study(files.write("a.json", "{")), ConfigError);
}

TEST_CASE("mean and spread", "[study]") {
  const Spread spread = spread_of({2, 4, 4, 4, 5, 5, 7, 9});
  CHECK(spread.mean == Approx(5));
  CHECK(*spread.deviation == Approx(std::sqrt(32.0 / 7)));
  CHECK(spread_of({0.25, 0.75}).to_text(2) == "0.50 \xC2\xB1 0.35");
  CHECK(spread_of({0.5}).to_text(3) == "0.500");
  CHECK(spread_of({}).to_text(3) == "-");
}

TEST_CASE("measurements of any kind become plots", "[study]") {
  const Plot lines = plot_measurements(
      "time", {"length", true}, {"s", true},
      {{"softmax", 4096, {8, 10}}, {"softmax", 1024, {1}}, {"linear", 1024, {2}}, {"linear", 4096, {}}});
  CHECK(lines.kind == PlotKind::lines);
  REQUIRE(lines.series.size() == 2);
  CHECK(lines.series[0].points[0].x == 1024);  // ascending
  CHECK(lines.series[0].points[1].y == 9);
  CHECK(lines.series[0].points[1].error == Approx(std::sqrt(2)));
  CHECK(lines.series[1].points.size() == 1);
  const Plot bars = plot_measurements("", {}, {"", true}, {{"", "b", {1}}, {"", "a", {2}}});
  CHECK(bars.kind == PlotKind::bars);
  CHECK(bars.categories == Texts{"b", "a"});
  CHECK(!bars.y.is_log);
  CHECK_THROWS_AS(plot_measurements("", {}, {}, {{"s", 1, {1}}, {"s", 1, {}}}), ValueError);
}

TEST_CASE("runs are compared by user over the seeds that both finished", "[study]") {
  const test::TemporaryDirectory files;
  const Study study = study_of(R"("runs": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}], "seeds": [1, 2],
                                  "metrics": ["HR@10"], "compare_to": "a", "plots": [{"x": "run", "y": "HR@10"}])",
                               files);
  const std::filesystem::path output = files / "out";
  const auto at = [&](std::size_t run, std::int64_t seed) {
    return study_run_directory(output, study.runs[run], seed);
  };
  write_run(at(0, 1), {1, 20, 20, 20}, 0.25);
  write_run(at(0, 2), {1, 1, 20, 20}, 0.5);
  write_run(at(1, 1), {1, 1, 20, 3}, 0.75);
  write_run(at(1, 2), {1, 1, 20, 3}, 0.75);
  write_run(at(2, 1), {1, 1, 1, 1}, 1, "h", "uni100");
  StudyRecords records = read_study_records(study, output);
  const auto comparison = compare_runs(records[1], records[0], "HR@10");
  REQUIRE(comparison.has_value());
  CHECK(comparison->seeds == 2);
  // Per user 1, 1, 0, 1 against 1, 0.5, 0, 0: the differences are 0, 0.5, 0, 1.
  const std::vector<double> with{1, 1, 0, 1}, without{1, 0.5, 0, 0};
  CHECK(comparison->t_test.difference == Approx(0.375));
  CHECK(comparison->t_test.p_value == Approx(paired_t_test(with, without).p_value));
  CHECK(!compare_runs(records[2], records[0], "HR@10").has_value());  // sampled against full
  CHECK(!compare_runs(records[3], records[0], "HR@10").has_value());  // not begun
  write_run(at(2, 1), {1, 1, 1, 1}, 1, "other data");
  write_run(at(3, 1), {1, 1, 1}, 1);
  records = read_study_records(study, output);
  CHECK(!compare_runs(records[2], records[0], "HR@10").has_value());
  CHECK(!compare_runs(records[3], records[0], "HR@10").has_value());  // other users

  CHECK(results_table(study, records).rows()[0] == Texts{"popularity", "-", "0.1250"});
  CHECK(results_table(study, records).rows()[1] == Texts{"a", "2 of 2", "0.3750 \xC2\xB1 0.1768"});
  CHECK(comparison_table(study, records).rows()[0][2] == "+0.3750");
  CHECK(comparison_table(study, records).rows()[0][3] == "+100.0 %");
  CHECK(comparison_table(study, records).rows()[1] == Texts{"c", "HR@10", "-", "-", "-", "-", "-", "-", "-"});
  CHECK(cost_table(study, records).rows()[0] == Texts{"a", "1000", "1.0 \xC2\xB1 0.0", "1.0 \xC2\xB1 0.0",
                                                      "2.50 \xC2\xB1 0.00", "2.5 \xC2\xB1 0.0", "3.0 MB", "-", "-"});
  CHECK(seeds_table(study, records).rows().back()[2] == "not begun");
  write_study(study, output);
  const std::string text = read_file(output / "study.md");
  CHECK_THAT(text, Contains("6 of 8 trainings finished") && Contains("the protocol") && Contains("plot-1.svg"));
  CHECK(std::filesystem::exists(output / "plot-1.svg"));
  CHECK_THAT(read_file(output / "study.csv"), Contains("a,HR@10,2,0.375,0.176776"));
}

}  // namespace study_test
