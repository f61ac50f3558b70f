#include "tally/recsys/evaluation/evaluate.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <set>

#include "tally/core/error.h"
#include "tally/core/parallel.h"
#include "tally/recsys/baselines/markov.h"
#include "tally/recsys/baselines/popularity.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tests/recsys/samples.h"

namespace tally::recsys::evaluate_test {
namespace {

using Catch::Matchers::Contains;

/// Scores with many ties that depend on the history alone.
Tensor tied_scores(const Sequences& histories, std::int64_t num_items) {
  Tensor scores({histories.count(), num_items});
  float* out = scores.mutable_data<float>();
  for (std::int64_t i = 0; i < histories.count(); ++i) {
    std::uint64_t row = 1;
    for (const std::int32_t item : histories.sequence(i)) row = row * 31 + static_cast<std::uint64_t>(item);
    for (std::int64_t item = 0; item < num_items; ++item) {
      *out++ = static_cast<float>(uniform_below(RngKey{3}, row % 1000003, static_cast<std::uint64_t>(item), 6));
    }
  }
  return scores;
}

Ranker tied_ranker(std::int64_t num_items) {
  return Ranker::from_function("tied", num_items,
                               [num_items](const Sequences& histories) { return tied_scores(histories, num_items); });
}

/// The position of the target, item by item, for every rule of ties.
struct Reference {
  double hit_rate = 0, ndcg = 0;
};

Reference reference(const Split& split, const EvaluationOptions& options, std::int64_t k) {
  const std::vector<std::int64_t> counts = split.training_counts();
  const std::int64_t items = split.data().num_items();
  Reference result;
  for (const Target& target : split.targets(Part::test)) {
    const auto history = split.history(target);
    const Sequences one = Sequences::from({{history.begin(), history.end()}}, items);
    const std::vector<double> scores = tied_scores(one, items).to_doubles();
    std::set<std::int64_t> candidates;
    for (std::int64_t item = 0; item < items; ++item) {
      const bool seen = std::find(history.begin(), history.end(), item) != history.end();
      if (options.seen == SeenFilter::full && seen) continue;
      if (options.candidates == Candidates::train && counts[static_cast<std::size_t>(item)] == 0) continue;
      candidates.insert(item);
    }
    const std::int32_t wanted = split.item(target);
    if (candidates.count(wanted) == 0) continue;
    std::int64_t greater = 0, equal = 0;
    for (const std::int64_t item : candidates) {
      greater += scores[static_cast<std::size_t>(item)] > scores[static_cast<std::size_t>(wanted)];
      equal += item != wanted && scores[static_cast<std::size_t>(item)] == scores[static_cast<std::size_t>(wanted)];
    }
    double hits = 0, ndcg = 0, positions = 0;
    for (std::int64_t behind = 0; behind <= equal; ++behind) {
      if (options.ties == RankTies::optimistic && behind != 0) continue;
      if (options.ties == RankTies::pessimistic && behind != equal) continue;
      const std::int64_t position = greater + behind + 1;
      ++positions;
      if (position > k) continue;
      hits += 1;
      ndcg += std::log(2.0) / std::log(static_cast<double>(position) + 1);
    }
    result.hit_rate += hits / positions;
    result.ndcg += ndcg / positions;
  }
  const auto n = static_cast<double>(split.targets(Part::test).size());
  return {result.hit_rate / n, result.ndcg / n};
}

}  // namespace

TEST_CASE("evaluation equals a loop over every item under every rule", "[evaluation]") {
  const Interactions data = test::random_interactions(RngKey{21}, 300, 60, 12);
  const Split split = leave_one_out(data);
  for (const SeenFilter seen : {SeenFilter::none, SeenFilter::full}) {
    for (const Candidates candidates : {Candidates::all, Candidates::train}) {
      for (const RankTies ties : {RankTies::mean, RankTies::pessimistic, RankTies::optimistic}) {
        const EvaluationOptions options{seen, candidates, ties, {1, 5, 10}};
        const Evaluation result = evaluate(tied_ranker(60), split, Part::test, options);
        INFO(result.to_text());
        for (const std::int64_t k : {1, 5, 10}) {
          const Reference expected = reference(split, options, k);
          CHECK(result.at(k).hit_rate == Approx(expected.hit_rate).margin(1e-12));
          CHECK(result.at(k).ndcg == Approx(expected.ndcg).margin(1e-12));
        }
        CHECK_THROWS_AS(result.at(7), ValueError);
      }
    }
  }
}

TEST_CASE("evaluation counts targets that cannot be reached and says its protocol", "[evaluation]") {
  // Item 4 is never trained on; user 2's target was seen before.
  const Interactions data = test::interactions_of({{0, 1, 2, 4}, {1, 2, 3, 0}, {3, 0, 1, 3}}, 5);
  const Split split = leave_one_out(data);
  const Popularity popularity(split);
  const Evaluation result = evaluate(popularity, split, Part::test);
  CHECK(result.unreachable == 1);
  CHECK(result.not_candidates == 1);
  CHECK(result.ranks[2] == TargetRank{});
  CHECK(result.protocol == "leave-one-out, full ranking over 5 items, seen=full, ties=mean");
  CHECK_THAT(result.to_text(),
             Contains("\nprotocol: leave-one-out, full ranking over 5 items, seen=full, ties=mean\n"));
  const EvaluationOptions trained{.seen = SeenFilter::none, .candidates = Candidates::train};
  const Evaluation among_trained = evaluate(popularity, split, Part::test, trained);
  CHECK(among_trained.not_candidates == 1);
  CHECK(among_trained.protocol == "leave-one-out, full ranking over 4 training items, seen=none, ties=mean");
}

TEST_CASE("a score that is not finite ends the evaluation, naming user and item", "[evaluation]") {
  const Interactions data = test::random_interactions(RngKey{22}, 50, 20, 9);
  const Split split = leave_one_out(data);
  const std::int32_t user = split.targets(Part::test)[7].user;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const Ranker ranker = Ranker::from_function("broken", 20, [&](const Sequences& histories) {
      Tensor scores = tied_scores(histories, 20);
      for (std::int64_t i = 0; i < histories.count(); ++i) {
        if (histories.users.span<std::int32_t>()[static_cast<std::size_t>(i)] == user) {
          scores.mutable_data<float>()[i * 20 + 13] = bad;
        }
      }
      return scores;
    });
    CHECK_THROWS_AS(evaluate(ranker, split, Part::test), ValueError);
    CHECK_THROWS_WITH(evaluate(ranker, split, Part::test),
                      Contains("user 'u" + std::to_string(user) + "'") && Contains("item 'i13'"));
  }
}

TEST_CASE("a ranker of other items or with scores of another shape is refused", "[evaluation]") {
  const Interactions data = test::random_interactions(RngKey{23}, 20, 20, 9);
  const Split split = leave_one_out(data);
  CHECK_THROWS_AS(evaluate(tied_ranker(19), split, Part::test), ShapeError);
  const auto scores_of = [](const Tensor& scores) {
    return Ranker::from_function("odd", 20, [scores](const Sequences&) { return scores; });
  };
  CHECK_THROWS_AS(evaluate(scores_of(Tensor::zeros({2, 20})), split, Part::test), ShapeError);
  CHECK_THROWS_AS(evaluate(scores_of(Tensor::zeros({1, 20}, DType::f64)), split, Part::test), DTypeError);
}

TEST_CASE("evaluation and recommendations are the same on any number of threads", "[evaluation]") {
  const Interactions data = test::random_interactions(RngKey{24}, 700, 300, 20);
  const Split split = leave_one_out(data);
  const Sequences histories = pack_histories(split, split.targets(Part::test));
  const int before = num_threads();
  set_num_threads(1);
  const Evaluation expected = evaluate(Markov(split), split, Part::test);
  const auto recommended = recommend(Markov(split), histories, {.k = 10});
  for (const int threads : {2, 8}) {
    set_num_threads(threads);
    const Evaluation result = evaluate(Markov(split), split, Part::test);
    CHECK(result.ranks == expected.ranks);
    CHECK(result.at(10).ndcg == expected.at(10).ndcg);
    CHECK(recommend(Markov(split), histories, {.k = 10}) == recommended);
  }
  set_num_threads(before);
}

TEST_CASE("blocks bound the memory of scores", "[evaluation]") {
  CHECK(users_per_block(100) == 256);
  CHECK(users_per_block(54542) * 54542 <= 1 << 22);
  CHECK(users_per_block(std::int64_t{1} << 40) == 1);
}

TEST_CASE("top-k equals a full sort, ties by the lower index", "[evaluation]") {
  const RngKey key{25};
  for (std::uint64_t trial = 0; trial < 30; ++trial) {
    std::vector<float> scores(50);
    for (std::uint64_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(uniform_below(key, trial, i, 9));
    std::vector<std::int32_t> excluded;
    std::vector<std::uint8_t> candidates(50, 1);
    for (std::uint64_t i = 0; i < 12; ++i) {
      excluded.push_back(static_cast<std::int32_t>(uniform_below(key, trial, 100 + i, 50)));
      candidates[uniform_below(key, trial, 200 + i, 50)] = 0;
    }
    std::vector<ScoredItem> sorted;
    for (std::int32_t i = 0; i < 50; ++i) {
      const bool out = std::find(excluded.begin(), excluded.end(), i) != excluded.end();
      if (!out && candidates[static_cast<std::size_t>(i)] != 0)
        sorted.push_back({i, scores[static_cast<std::size_t>(i)]});
    }
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
    for (const std::int64_t k : {1, 10, 100}) {
      const auto expected = std::vector<ScoredItem>(
          sorted.begin(), sorted.begin() + std::min<std::int64_t>(k, static_cast<std::int64_t>(sorted.size())));
      CHECK(top_k(scores, k, excluded, candidates) == expected);
    }
  }
  const std::vector<float> bad{1, std::nanf(""), 2};
  CHECK_THROWS_WITH(top_k(bad, 1), Contains("item index 1"));
  CHECK_THROWS_AS(top_k(std::vector<float>{1}, 0), ValueError);
}

TEST_CASE("recommendations leave out the history unless told otherwise", "[evaluation]") {
  const Interactions data = test::interactions_of({{0, 1, 0, 1, 2, 3}, {0, 2, 3}}, 4);
  const Split split = leave_one_out(data);
  const Sequences histories = Sequences::from({{0}, {}}, 4);
  const auto filtered = recommend(Popularity(split), histories, {.k = 2});
  CHECK(filtered[0] == std::vector<ScoredItem>{{1, 2.0F}, {2, 0.0F}});
  CHECK(filtered[1] == std::vector<ScoredItem>{{0, 3.0F}, {1, 2.0F}});
  CHECK(recommend(Popularity(split), histories, {.k = 1, .seen = SeenFilter::none})[0] ==
        std::vector<ScoredItem>{{0, 3.0F}});
}

// The order of Markov's scores against that of (count, popularity) pairs, which the textbook score stands for.
TEST_CASE("Markov orders by count, then by popularity", "[evaluation]") {
  const Interactions data = test::random_interactions(RngKey{26}, 900, 25, 30);
  const Split split = leave_one_out(data);
  const Markov markov(split);
  const std::vector<std::int64_t> popularity = split.training_counts();
  for (std::int32_t last = 0; last < 25; ++last) {
    std::vector<std::int64_t> counts(25);
    for (std::int64_t user = 0; user < data.num_users(); ++user) {
      const auto items = split.training(user);
      for (std::size_t i = 1; i < items.size(); ++i) counts[static_cast<std::size_t>(items[i])] += items[i - 1] == last;
    }
    const std::vector<double> scores = markov.score(Sequences::from({{7, last}}, 25)).to_doubles();
    for (std::size_t a = 0; a < 25; ++a) {
      CHECK(std::floor(scores[a]) == static_cast<double>(counts[a]));
      for (std::size_t b = 0; b < 25; ++b) {
        const bool below = std::pair(counts[a], popularity[a]) < std::pair(counts[b], popularity[b]);
        REQUIRE((scores[a] < scores[b]) == below);
      }
    }
  }
  const std::vector<double> cold = markov.score(Sequences::from({{}}, 25)).to_doubles();
  for (std::size_t a = 0; a < 25; ++a) {
    for (std::size_t b = 0; b < 25; ++b) REQUIRE((cold[a] < cold[b]) == (popularity[a] < popularity[b]));
  }
}

}  // namespace tally::recsys::evaluate_test
