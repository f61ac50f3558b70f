#include "tally/recsys/evaluation/candidate_sampling.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "tally/core/error.h"
#include "tally/core/parallel.h"
#include "tally/recsys/baselines/popularity.h"
#include "tally/recsys/evaluation/evaluate.h"
#include "tests/recsys/samples.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys::candidate_sampling_test {
namespace {

using Catch::Matchers::Contains;
using tally::test::message_of;
using Distribution = CandidateSampling::Distribution;
using Exclude = CandidateSampling::Exclude;

std::set<std::int32_t> as_set(std::span<const std::int32_t> items) { return {items.begin(), items.end()}; }

/// What `exclude` forbids, from its definition.
std::set<std::int32_t> forbidden(const Split& split, const Target& target, Exclude exclude) {
  if (exclude == Exclude::training) return as_set(split.training(target.user));
  if (exclude == Exclude::all) return as_set(split.data().sequence(target.user));
  std::set<std::int32_t> items = as_set(split.history(target));
  items.insert(split.item(target));
  return items;
}

/// A ranker of equal scores that says when it is asked.
template <class OnScore>
struct Watched {
  std::int64_t items;
  OnScore on_score;
  std::string name() const { return "watched"; }
  std::int64_t num_items() const { return items; }
  Tensor score(const Sequences& histories) const {
    on_score();
    return Tensor::zeros({histories.count(), items});
  }
};

}  // namespace

TEST_CASE("negatives keep out what is excluded, and nothing else", "[sampling]") {
  const Interactions data = test::random_interactions(RngKey{5}, 60, 40, 15);
  const Split split = leave_one_out(data);
  for (const Exclude exclude : {Exclude::training, Exclude::history, Exclude::all}) {
    for (const Distribution distribution : {Distribution::uniform, Distribution::popularity}) {
      for (const bool replacement : {true, false}) {
        for (const std::int64_t count : {1, 5, 30, 300}) {
          const CandidateSampling sampling{count, distribution, exclude, replacement, 3};
          INFO(sampling.description());
          const CandidateSampler sampler(split, Part::test, sampling);
          const std::vector<std::int64_t> counts = split.training_counts();
          std::string first_refusal;
          for (const Target& target : split.targets(Part::test)) {
            const std::set<std::int32_t> out = forbidden(split, target, exclude);
            std::int64_t drawable = 0;
            for (std::int32_t item = 0; item < 40; ++item) {
              const bool possible = distribution == Distribution::uniform || counts[static_cast<std::size_t>(item)] > 0;
              drawable += possible && out.count(item) == 0;
            }
            if (drawable < (replacement ? 1 : count)) {
              const std::string refusal = message_of<ValueError>([&] { sampler.draw(target); });
              REQUIRE_THAT(refusal, Contains("'" + std::string(data.users.name(target.user)) + "'"));
              if (drawable > 0) {
                REQUIRE_THAT(refusal, Contains("needs " + std::to_string(count) + " items") &&
                                          Contains("got " + std::to_string(drawable) + " for user"));
              }
              REQUIRE(message_of<ValueError>([&] { sampler.check_target(target); }) == refusal);
              if (first_refusal.empty()) first_refusal = refusal;
              continue;
            }
            REQUIRE_NOTHROW(sampler.check_target(target));
            const std::vector<std::int32_t> drawn = sampler.draw(target);
            const std::set<std::int32_t> distinct = as_set(drawn);
            for (const std::int32_t item : distinct) REQUIRE(out.count(item) == 0);
            const auto size = static_cast<std::int64_t>(drawn.size());
            REQUIRE(size == count);
            if (replacement) {
              if (count == 300 && distribution == Distribution::uniform) {
                REQUIRE(static_cast<std::int64_t>(distinct.size()) > drawable * 9 / 10);
              }
            } else {
              REQUIRE(static_cast<std::int64_t>(distinct.size()) == size);
            }
          }
          const auto check = [&] { check_candidates(split, Part::test, split.targets(Part::test), sampling); };
          if (first_refusal.empty()) {
            REQUIRE_NOTHROW(check());
          } else {
            REQUIRE(message_of<ValueError>(check) == first_refusal);
          }
        }
      }
    }
  }
}

TEST_CASE("fewer negatives than a label says are refused for the part and the users that are evaluated", "[sampling]") {
  // Eight items. u0 knows five of them, two after its last training event; item 7 is trained on by nobody.
  const Interactions data = test::interactions_of({{0, 1, 2, 3, 4}, {5, 6, 7}, {0, 5, 6}}, 8);
  const Split split = leave_one_out(data);
  const auto refusal = [&](Part part, const std::vector<Target>& targets, CandidateSampling sampling) {
    sampling.replacement = false;
    bool scored = false;
    const auto score = [&] { scored = true; };
    const Watched<decltype(score)> ranker{split.data().num_items(), score};
    EvaluationOptions options;
    options.sampled = sampling;
    const std::string message = message_of<ValueError>([&] { evaluate(ranker, split, part, targets, options); });
    CHECK(scored == (message == "nothing was thrown"));
    CHECK(message_of<ValueError>([&] { check_candidates(split, part, targets, sampling); }) == message);
    return message;
  };
  const std::vector<Target>& tested = split.targets(Part::test);
  const std::vector<Target>& validation = split.targets(Part::validation);
  const std::string none = "nothing was thrown";
  CHECK(refusal(Part::test, tested, {.count = 3}) == none);
  CHECK_THAT(
      refusal(Part::test, tested, {.count = 4}),
      Contains("needs 4 items to draw for every user without replacement (uni4); got 3 for user 'u0' in the test"));
  CHECK(refusal(Part::test, {tested[1], tested[2]}, {.count = 5}) == none);
  CHECK_THAT(refusal(Part::test, {tested[1], tested[2]}, {.count = 6}), Contains("got 5 for user 'u1'"));
  // Before the validation target u0 has three items, with it four.
  CHECK(refusal(Part::validation, validation, {.count = 4, .exclude = Exclude::history}) == none);
  CHECK_THAT(refusal(Part::validation, validation, {.count = 5, .exclude = Exclude::history}),
             Contains("got 4 for user 'u0' in the validation"));
  CHECK_THAT(refusal(Part::test, tested, {.count = 4, .exclude = Exclude::history}), Contains("got 3 for user 'u0'"));
  CHECK(refusal(Part::test, tested, {.count = 5, .exclude = Exclude::training}) == none);
  CHECK_THAT(refusal(Part::test, tested, {.count = 6, .exclude = Exclude::training}), Contains("got 5 for user 'u0'"));
  // Trained on are 0, 1, 2 and 5: u0 leaves one of them, u1 three.
  CHECK_THAT(refusal(Part::test, tested, {.count = 2, .distribution = Distribution::popularity}),
             Contains("(pop2); got 1 for user 'u0'"));
  CHECK(refusal(Part::test, {tested[1]}, {.count = 3, .distribution = Distribution::popularity}) == none);
  CHECK_THAT(refusal(Part::test, {tested[1]}, {.count = 4, .distribution = Distribution::popularity}),
             Contains("(pop4); got 3 for user 'u1'"));
}

TEST_CASE("negatives follow their distribution", "[sampling]") {
  // Item i is trained on i times by as many users; the last user's own items are few.
  std::vector<std::vector<std::int32_t>> sequences;
  for (std::int32_t item = 0; item < 8; ++item) {
    for (std::int32_t times = 0; times < item; ++times) sequences.push_back({item, 9, 10});
  }
  sequences.push_back({8, 9, 10});
  const Interactions data = test::interactions_of(sequences, 11);
  const Split split = leave_one_out(data);
  const Target last = split.targets(Part::test).back();
  const auto draws = [&](Distribution distribution, bool replacement, std::int64_t count) {
    std::vector<double> frequency(11, 0);
    std::int64_t all = 0;
    for (std::uint64_t seed = 0; seed < 400; ++seed) {
      const CandidateSampler sampler(split, Part::test, {count, distribution, Exclude::all, replacement, seed});
      for (const std::int32_t item : sampler.draw(last)) {
        frequency[static_cast<std::size_t>(item)] += 1;
        ++all;
      }
    }
    for (double& f : frequency) f /= static_cast<double>(all);
    return frequency;
  };
  const std::vector<double> popular = draws(Distribution::popularity, true, 50);
  const std::vector<double> uniform = draws(Distribution::uniform, true, 50);
  const std::vector<double> first = draws(Distribution::popularity, false, 1);
  for (std::size_t item = 0; item < 8; ++item) {
    CHECK(popular[item] == Approx(static_cast<double>(item) / 28).margin(0.012));
    CHECK(uniform[item] == Approx(1.0 / 8).margin(0.012));
    CHECK(first[item] == Approx(static_cast<double>(item) / 28).margin(0.08));
  }
  for (std::size_t item = 8; item < 11; ++item) CHECK(popular[item] + uniform[item] == 0);
}

TEST_CASE("negatives depend on seed, part and user alone", "[sampling]") {
  const Interactions data = test::random_interactions(RngKey{6}, 30, 500, 15);
  const Split split = leave_one_out(data);
  const Target target = split.targets(Part::test)[3];
  const CandidateSampler sampler(split, Part::test, {});
  CHECK(sampler.draw(target) == CandidateSampler(split, Part::test, {}).draw(target));
  CHECK(sampler.draw(target) != CandidateSampler(split, Part::validation, {}).draw(target));
  CHECK(sampler.draw(target) != CandidateSampler(split, Part::test, {.seed = 1}).draw(target));
  CHECK(sampler.draw(target) != sampler.draw(split.targets(Part::test)[4]));
  CHECK_THROWS_AS(CandidateSampler(split, Part::test, {.count = 0}), ValueError);

  // A user who knows every item.
  const Interactions full = test::interactions_of({{0, 1, 2}}, 3);
  const Split full_split = leave_one_out(full);
  const CandidateSampler nothing(full_split, Part::test, {});
  CHECK_THROWS_WITH(nothing.draw(full_split.targets(Part::test)[0]), Catch::Matchers::Contains("u0"));
}

TEST_CASE("sampled evaluation equals a loop over the drawn negatives", "[sampling]") {
  const Interactions data = test::random_interactions(RngKey{8}, 120, 70, 12);
  const Split split = leave_one_out(data);
  const Popularity popularity(split);
  const std::vector<std::int64_t> counts = split.training_counts();
  for (const RankTies ties : {RankTies::mean, RankTies::optimistic, RankTies::pessimistic}) {
    EvaluationOptions options{.ties = ties, .cutoffs = {1, 5}};
    options.sampled = CandidateSampling{20, Distribution::uniform, Exclude::training, true, 9};
    const Evaluation result = evaluate(popularity, split, Part::test, options);
    const CandidateSampler sampler(split, Part::test, *options.sampled);
    double hits = 0;
    for (const Target& target : split.targets(Part::test)) {
      std::int64_t greater = 0, equal = 0;
      for (const std::int32_t item : sampler.draw(target)) {
        const std::int64_t other = counts[static_cast<std::size_t>(item)];
        const std::int64_t target_count = counts[static_cast<std::size_t>(split.item(target))];
        greater += other > target_count;
        equal += other == target_count;
      }
      const auto places = static_cast<double>(equal + 1);
      const auto reached = static_cast<double>(std::clamp<std::int64_t>(5 - greater, 0, equal + 1));
      if (ties == RankTies::mean) hits += reached / places;
      if (ties == RankTies::optimistic) hits += greater < 5;
      if (ties == RankTies::pessimistic) hits += greater + equal < 5;
    }
    CHECK(result.at(5).hit_rate == Approx(hits / static_cast<double>(split.targets(Part::test).size())).margin(1e-12));
    CHECK(result.metric_name("HR", 5) == "HR@5(uni20)");
    CHECK(result.protocol.find("20 uniform negatives with replacement, outside the user's training items, seed 9") !=
          std::string::npos);
    CHECK(result.not_candidates == 0);
    std::vector<TargetRank> once = result.ranks;
    const int threads = num_threads();
    set_num_threads(1);
    const Evaluation serial = evaluate(popularity, split, Part::test, options);
    set_num_threads(threads);
    CHECK(serial.ranks == once);
  }
}

}  // namespace tally::recsys::candidate_sampling_test
