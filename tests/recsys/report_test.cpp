#include <catch2/catch.hpp>
#include <cmath>

#include "tally/recsys/report/breakdown.h"
#include "tally/recsys/report/report.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/well_formed.h"

namespace report_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

/// A run directory written by hand, with titles that are markup.
class HandWritten {
 public:
  HandWritten() {
    files_.write("config.resolved.json",
                 R"({"data": {"path": "a&b.csv"}, "model": {"name": "<model>"},
                     "train": {"valid_metric": "Recall@10"}, "evaluation": {"rank_ties": "pessimistic"}, "output": "r"})");
    files_.write("training.json", R"({"model": "<model>", "parameters": 1234567, "baselines": [
        {"ranker": "popularity", "protocol": "some \"protocol\" <1>", "HR@10": 0.25, "NDCG@10": 0.125, "users": 4}]})");
    files_.write(
        "metrics.jsonl",
        "{\"event\":\"epoch\",\"epoch\":1,\"loss\":5.5,\"seconds\":2,\"tokens_per_second\":100,\"peak_memory\":1}\n"
        "{\"event\":\"validation\",\"epoch\":1,\"HR@10\":0.5,\"NDCG@10\":0.25,\"seconds\":1}\n"
        "{\"event\":\"epoch\",\"epoch\":2,\"loss\":\"NaN\",\"seconds\":4,\"peak_memory\":7}\n"
        "{\"event\":\"epo");
  }
  void finish() const {
    files_.write("test_metrics.json", R"({"best_epoch": 1, "best_validation": 0.5, "test": [
        {"ranker": "popularity", "protocol": "p", "HR@10": 0.25, "NDCG@10": 0.125, "users": 4},
        {"ranker": "<model>", "protocol": "some \"protocol\" <1>", "HR@10": 0.5, "NDCG@10": 0.3, "users": 4}]})");
    files_.write("ranks.tsv",
                 "user_id\titem_id\tbest_rank\tworst_rank\thistory_length\n"
                 "u<1>\ta\t1\t1\t3\nu2\tb\t10\t11\t5\nu3\tc\t70\t70\t6\nu4\td\t0\t0\t400\n");
    files_.write("samples.json",
                 R"([{"user": "u<1>", "events": 4, "test_item": "\"Tom & Jerry\" <script>alert(1)</script>",
        "best_rank": 2, "worst_rank": 3, "history": ["L\u00e9on \ud83c\udfac", "a\u0001b"],
        "recommended": [{"item": "]]> & 'quoted'", "score": 1.5}]}])");
  }
  RunDirectory run() const { return {files_.path()}; }
  const test::TemporaryDirectory& files() const { return files_; }

 private:
  test::TemporaryDirectory files_;
};

}  // namespace

TEST_CASE("a report is well-formed, escaped and needs nothing from outside", "[report]") {
  const HandWritten written;
  written.finish();
  const std::string page = report_html(read_run_record(written.run()));
  CHECK(test::malformed(page) == "");
  CHECK_THAT(page, Contains("&quot;Tom &amp; Jerry&quot; &lt;script&gt;alert(1)&lt;/script&gt;"));
  CHECK_THAT(page, Contains("]]&gt; &amp; &#39;quoted&#39;") && Contains("L\xC3\xA9on \xF0\x9F\x8E\xAC"));
  CHECK_THAT(page, Contains("a\xEF\xBF\xBD"
                            "b") &&
                       Contains("&lt;model&gt;") && Contains("a&amp;b.csv"));
  for (const char* outside : {"<script", "<link", "src=", "href=", "url(", "@import"})
    CHECK_THAT(page, !Contains(outside));
  CHECK_THAT(page,
             Contains("had been ranked 2 to 3") && Contains("1,234,567") && Contains("some &quot;protocol&quot;"));
  CHECK_THAT(page, Contains("tested with the weights of epoch 1"));
  // The metric that models are chosen by, under its recorded name.
  CHECK_THAT(page, Contains("HR@10 by history length") && Contains("prefers-color-scheme:dark"));
}

TEST_CASE("a run that is not finished has a report of what is there", "[report]") {
  const HandWritten written;
  const std::string page = report_html(read_run_record(written.run()));
  CHECK(test::malformed(page) == "");
  CHECK_THAT(page, Contains("not finished yet") && Contains("popularity") && !Contains("Recommended next"));
  const test::TemporaryDirectory bare;
  bare.write("config.resolved.json", "{}");
  CHECK(test::malformed(report_html(read_run_record({bare.path()}))) == "");
  const test::TemporaryDirectory none;
  CHECK_THAT(test::message_of<IoError>([&] { write_report({none.path()}, none / "report.html"); }),
             Contains("is no run directory"));
}

TEST_CASE("a run record reads what was written, and names what is malformed", "[report]") {
  const HandWritten written;
  written.finish();
  const RunRecord record = read_run_record(written.run());
  REQUIRE(record.epochs.size() == 2);  // the torn line is none
  CHECK(record.ranks.size() == 4);
  CHECK(record.ranks[1].rank == TargetRank{10, 11});
  const RunFigures figures = record.figures();
  CHECK(figures.parameters == 1234567);
  CHECK(figures.epochs == 2);
  CHECK(figures.best_epoch == 1);
  CHECK(figures.seconds_per_epoch == 3);
  CHECK(figures.total_seconds == 7);
  CHECK(figures.peak_memory == 7);
  CHECK(!figures.sgemm_share.has_value());
  CHECK(record.result().at("ranker") == Json("<model>"));
  for (const char* row : {"u\ti\t1\n", "u\ti\t1\tx\t3\n", "u\ti\t-1\t1\t3\n"}) {
    written.files().write("ranks.tsv", std::string("header\n") + row);
    CHECK_THAT(test::message_of<IoError>([&] { read_run_record(written.run()); }), Contains("ranks.tsv:2"));
  }
}

TEST_CASE("metrics of one rank by name", "[report]") {
  CHECK(metric_of({1, 1}, "NDCG@10", RankTies::mean) == 1);
  CHECK(metric_of({3, 3}, "NDCG@10", RankTies::mean) == Approx(0.5));
  CHECK(metric_of({10, 11}, "HR@10", RankTies::mean) == Approx(0.5));
  CHECK(metric_of({10, 11}, "Recall@10", RankTies::pessimistic) == 0);
  CHECK(metric_of({4, 4}, "MRR@5", RankTies::mean) == Approx(0.25));
  CHECK(metric_of({0, 0}, "MRR@5", RankTies::optimistic) == 0);
  for (const char* name : {"NDCG", "NDCG@", "NDCG@x", "NDCG@10x", "NDCG@0", "F1@10", ""}) {
    CHECK_THROWS_AS(metric_of({1, 1}, name, RankTies::mean), ConfigError);
  }
}

TEST_CASE("breakdowns count every user once", "[report]") {
  const std::vector<UserRank> ranks{{"a", {1, 1}, 1},  {"b", {2, 2}, 5},    {"c", {5, 6}, 6},
                                    {"d", {0, 0}, 30}, {"e", {90, 90}, 51}, {"f", {1, 1}, 50}};
  const auto lengths = by_history_length(ranks, "HR@1", RankTies::mean);
  REQUIRE(lengths.size() == 4);
  CHECK(lengths[0].label() ==
        "0\xE2\x80\x93"
        "5");
  CHECK(lengths[0].users == 2);
  CHECK(lengths[0].metric == Approx(0.5));
  CHECK(lengths[1].users == 1);
  CHECK(lengths[2].from == 21);
  CHECK(lengths[2].to == 50);
  CHECK(lengths[2].metric == Approx(0.5));
  CHECK(lengths[3].users == 1);
  const auto distribution = rank_distribution(ranks);
  std::vector<std::int64_t> counts;
  for (const RankBucket& bucket : distribution) counts.push_back(bucket.users);
  // 1, 2-5, 6-10, 11-20, 21-50, 51-100, not ranked
  CHECK(counts == std::vector<std::int64_t>{2, 1, 1, 0, 0, 1, 1});
  CHECK(distribution.back().label() == "not ranked");
  CHECK(by_history_length({{"a", {1, 1}, -1}}, "HR@1", RankTies::mean).empty());
}

}  // namespace report_test
