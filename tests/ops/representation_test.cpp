// The representation of a document one row at a time, and collections of them, against plain loops in double.
#include "tally/ops/lookup/representation.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>

#include "tally/core/io/file.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/ops/lookup/representation_collection.h"
#include "tests/support/temporary_directory.h"

namespace representation_test {

using namespace tally;
using namespace tally::ops;
using tally::test::TemporaryDirectory;
using Matrix = std::vector<std::vector<double>>;

namespace {

std::vector<float> row_of(std::int64_t width, std::uint64_t stream, double size = 1) {
  std::vector<float> row(static_cast<std::size_t>(width));
  for (std::size_t i = 0; i < row.size(); ++i)
    row[i] = static_cast<float>(size * (2 * uniform(RngKey{17}, stream, i) - 1));
  return row;
}

/// The definition.
struct Naive {
  Matrix c;
  explicit Naive(std::int64_t width)
      : c(static_cast<std::size_t>(width), std::vector<double>(static_cast<std::size_t>(width))) {}
  void append(const std::vector<float>& row, double decay, double gain) {
    for (std::size_t i = 0; i < c.size(); ++i) {
      for (std::size_t j = 0; j < c.size(); ++j) c[i][j] = decay * c[i][j] + gain * double{row[i]} * double{row[j]};
    }
  }
  std::vector<double> look_up(const std::vector<float>& query) const {
    std::vector<double> out(c.size());
    for (std::size_t i = 0; i < c.size(); ++i) {
      for (std::size_t j = 0; j < c.size(); ++j) out[i] += c[i][j] * double{query[j]};
    }
    return out;
  }
};

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double value : values) most = std::max(most, std::abs(value));
  return most;
}

void check_close(std::span<const float> got, const std::vector<double>& wanted, double tolerance) {
  REQUIRE(got.size() == wanted.size());
  const double size = largest(wanted);
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(std::abs(double{got[i]} - wanted[i]) <= tolerance * size);
}

Representation document_of(std::int64_t width, std::int64_t rows, std::uint64_t stream) {
  Representation document(width);
  for (std::int64_t t = 0; t < rows; ++t) {
    document.append(row_of(width, stream * 1000 + static_cast<std::uint64_t>(t)));
  }
  return document;
}

std::vector<float> looked_up(const Representation& document, const std::vector<float>& query) {
  std::vector<float> out(query.size());
  document.look_up(query, out);
  return out;
}

}  // namespace

TEST_CASE("a representation appends, decays, answers and scores as its definition", "[representation]") {
  for (const std::int64_t width : {1, 2, 3, 4, 5, 7, 16, 31, 33, 64, 67, 128}) {
    Representation document(width);
    Naive naive(width);
    for (std::uint64_t t = 0; t < 40; ++t) {
      const double decay = t == 20 ? 0 : 1 - 0.01 * static_cast<double>(t % 3), gain = t % 5 == 0 ? 0.5 : 1;
      const std::vector<float> row = row_of(width, t);
      document.append(row, decay, gain);
      naive.append(row, decay, gain);
    }
    const std::vector<float> query = row_of(width, 99);
    const std::vector<double> wanted = naive.look_up(query);
    check_close(looked_up(document, query), wanted, 1e-6);
    double form = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) form += wanted[i] * double{query[i]};
    CHECK(document.score(query) == Approx(form).epsilon(1e-12));
    CHECK(document.rows() == 40);
    CHECK(document.decay() == 0);
  }
}

TEST_CASE("representations merge as if one document had followed the other, and give rows back", "[representation]") {
  constexpr std::int64_t width = 9;
  Representation whole(width), first(width), second(width);
  for (std::uint64_t t = 0; t < 30; ++t) {
    const double decay = 0.9 + 0.003 * static_cast<double>(t);
    whole.append(row_of(width, t), decay, 0.7);
    (t < 13 ? first : second).append(row_of(width, t), decay, 0.7);
  }
  first.merge(second);
  CHECK(first.rows() == whole.rows());
  CHECK(first.decay() == Approx(whole.decay()));
  for (std::size_t i = 0; i < whole.packed().size(); ++i) {
    CHECK(first.packed()[i] == Approx(whole.packed()[i]).margin(1e-14));
  }

  Representation twice = second;
  twice.merge(twice);
  CHECK(twice.packed()[0] == Approx(second.packed()[0] * (1 + second.decay())));

  Representation kept(width), removed(width);
  for (std::uint64_t t = 0; t < 10; ++t) {
    removed.append(row_of(width, t));
    if (t != 4) kept.append(row_of(width, t));
  }
  removed.remove(row_of(width, 4));
  CHECK(removed.rows() == kept.rows());
  for (std::size_t i = 0; i < kept.packed().size(); ++i) {
    CHECK(removed.packed()[i] == Approx(kept.packed()[i]).margin(1e-14));
  }
}

TEST_CASE("the newest rows are taken back, as far as errors stay small", "[representation]") {
  constexpr std::int64_t width = 7;
  Representation document(width);
  for (std::uint64_t t = 0; t < 60; ++t) document.append(row_of(width, t), 0.95, 0.8);
  const Representation before = document;
  for (std::uint64_t t = 60; t < 160; ++t) document.append(row_of(width, t), 0.95, 0.8);
  for (std::uint64_t t = 160; t-- > 60;) document.take_back(row_of(width, t), 0.95, 0.8);
  CHECK(document.rows() == before.rows());
  CHECK(document.decay() == Approx(before.decay()));
  for (std::size_t i = 0; i < before.packed().size(); ++i) {
    CHECK(document.packed()[i] == Approx(before.packed()[i]).margin(1e-9 * document.packed()[0]));
  }
  // .95^100 was .006; 169 more would be below 1e-6.
  const std::vector<float> row = row_of(width, 1);
  std::int64_t taken = 0;
  const auto take_all = [&] {
    for (; taken < 400; ++taken) {
      document.append(row, 0.95);
      document.take_back(row, 0.95);
    }
  };
  CHECK_THROWS_WITH(take_all(), Catch::Contains("below 1e-06"));
  CHECK(taken == 169);
  document.append(row, 0);
  CHECK_THROWS_AS(document.take_back(row, 0), ValueError);
  CHECK_THROWS_WITH(Representation(width).take_back(row), Catch::Contains("no row"));
  Representation whole(width);
  whole.append(row);
  whole.take_back(row);
  CHECK(whole == Representation(width));
}

TEST_CASE("a representation refuses what does not fit, and stays as it was", "[representation]") {
  Representation document(3);
  document.append(std::vector<float>{1, 2, 3});
  const Representation before = document;
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH(Representation(0), Catch::Contains("at least 1"));
  CHECK_THROWS_AS(document.append(std::vector<float>{1, 2}), ShapeError);
  CHECK_THROWS_WITH(document.append(std::vector<float>{1, nan, 2}), Catch::Contains("element 1 of the row"));
  CHECK_THROWS_AS(document.append(std::vector<float>{1, infinity, 2}), ValueError);
  const std::vector<float> row{1, 1, 1};
  CHECK_THROWS_WITH(document.append(row, 1.01), Catch::Contains("decay within [0, 1]; got 1.01"));
  CHECK_THROWS_AS(document.append(row, -0.1), ValueError);
  CHECK_THROWS_AS(document.append(row, 1, 2), ValueError);
  CHECK_THROWS_AS(document.append(row, std::nan("")), ValueError);
  CHECK_THROWS_AS(document.merge(Representation(4)), ShapeError);
  std::vector<float> small(2);
  CHECK_THROWS_AS(document.look_up(row, small), ShapeError);
  CHECK_THROWS_WITH(Representation(3).remove(row), Catch::Contains("no row"));
  CHECK(document == before);
  document.append(row, 0.5);
  CHECK_THROWS_WITH(document.remove(row), Catch::Contains("decay"));
}

TEST_CASE("a saved representation is read back whole, or refused", "[representation]") {
  const Representation document = document_of(5, 7, 3);
  const std::string bytes = document.save();
  CHECK(Representation::load(bytes, 5) == document);
  CHECK_THROWS_AS(Representation::load(bytes, 6), ShapeError);
  for (std::size_t cut = 0; cut < bytes.size(); cut += 3) {
    CHECK_THROWS_AS(Representation::load(bytes.substr(0, cut), 5), IoError);
  }
  CHECK_THROWS_AS(Representation::load(bytes + "x", 5), IoError);
  std::string other = bytes;
  other[4] = 2;
  CHECK_THROWS_WITH(Representation::load(other, 5), Catch::Contains("version 1"));
  for (std::size_t at = 16; at < bytes.size(); at += 5) {
    other = bytes;
    other[at] = static_cast<char>(other[at] ^ 4);
    CHECK_THROWS_AS(Representation::load(other, 5), IoError);
  }
}

TEST_CASE("a representation of a million rows is within 1e-5 of one in double", "[representation][slow]") {
  constexpr std::int64_t width = 8;
  for (const double decay : {1.0, 0.9999}) {
    Representation document(width);
    std::vector<long double> sums(64);
    for (std::uint64_t t = 0; t < 1'000'000; ++t) {
      const std::vector<float> row = row_of(width, t);
      document.append(row, decay);
      for (std::size_t i = 0; i < 8; ++i) {
        for (std::size_t j = 0; j < 8; ++j) {
          long double& sum = sums[8 * i + j];
          sum = decay * sum + static_cast<long double>(row[i]) * static_cast<long double>(row[j]);
        }
      }
    }
    const std::vector<float> query = row_of(width, 5);
    std::vector<double> wanted(8);
    for (std::size_t i = 0; i < 8; ++i) {
      for (std::size_t j = 0; j < 8; ++j) wanted[i] += static_cast<double>(sums[8 * i + j]) * double{query[j]};
    }
    check_close(looked_up(document, query), wanted, 1e-6);
  }
}

TEST_CASE("a collection answers as its documents do", "[representation]") {
  for (const std::int64_t width : {1, 3, 4, 17, 64, 130}) {
    for (const auto storage : {RepresentationStorage::f32, RepresentationStorage::int8}) {
      // An element of int8 is wrong by at most half a step; the errors of a row's elements add like a random walk.
      const double tolerance = storage == RepresentationStorage::f32 ? 1e-5 : 2e-2;
      RepresentationCollection collection(width, storage);
      std::vector<Representation> documents;
      for (std::int64_t d = 0; d < 150; ++d) {
        documents.push_back(document_of(width, d % 7 == 0 ? 0 : 20, static_cast<std::uint64_t>(d)));
        collection.add(1000 - d, documents.back());
      }
      const std::vector<float> query = row_of(width, 77);
      std::vector<float> products(static_cast<std::size_t>(150 * width)), scores(150), one(query.size());
      collection.products(query, products);
      collection.scores(query, scores);
      for (std::int64_t d = 0; d < 150; ++d) {
        const std::vector<float> answer = looked_up(documents[static_cast<std::size_t>(d)], query);
        const std::span<const float> product(products.data() + d * width, static_cast<std::size_t>(width));
        check_close(product, {answer.begin(), answer.end()}, tolerance);
        collection.look_up(1000 - d, query, one);
        CHECK(std::equal(one.begin(), one.end(), product.begin()));
        double form = 0;
        for (std::size_t i = 0; i < query.size(); ++i) form += double{product[i]} * double{query[i]};
        CHECK(scores[static_cast<std::size_t>(d)] == Approx(form).epsilon(1e-4).margin(1e-5));
      }
      const auto best = collection.best(query, 5);
      REQUIRE(best.size() == 5);
      for (std::size_t i = 1; i < 5; ++i) CHECK(best[i - 1].score >= best[i].score);
      CHECK(best[0].score == *std::max_element(scores.begin(), scores.end()));
    }
  }
}

TEST_CASE("a collection's answers are the same bits on any number of threads", "[representation]") {
  RepresentationCollection collection(20, RepresentationStorage::int8);
  for (std::int64_t d = 0; d < 300; ++d) collection.add(d, document_of(20, 5, static_cast<std::uint64_t>(d)));
  const std::vector<float> query = row_of(20, 1);
  std::vector<float> one(300 * 20), many(300 * 20);
  const int threads = num_threads();
  set_num_threads(1);
  collection.products(query, one);
  set_num_threads(8);
  collection.products(query, many);
  set_num_threads(threads);
  CHECK(one == many);
}

TEST_CASE("a collection is saved, mapped, changed and saved over itself", "[representation]") {
  const TemporaryDirectory directory;
  const auto path = directory.path() / "documents";
  constexpr std::int64_t width = 6;
  for (const auto storage : {RepresentationStorage::f32, RepresentationStorage::int8}) {
    RepresentationCollection made(width, storage);
    for (std::int64_t d = 0; d < 70; ++d) made.add(d, document_of(width, 4, static_cast<std::uint64_t>(d)));
    made.save(path);
    RepresentationCollection opened = RepresentationCollection::open(path);
    CHECK(opened.size() == 70);
    CHECK(opened.storage() == storage);
    opened.check_contents();
    const std::vector<float> query = row_of(width, 9);
    const auto answers = [&](const RepresentationCollection& of) {
      std::map<std::int64_t, float> scores;
      std::vector<float> all(static_cast<std::size_t>(of.size()));
      of.scores(query, all);
      for (std::size_t i = 0; i < all.size(); ++i) scores[of.ids()[i]] = all[i];
      return scores;
    };
    CHECK(answers(opened) == answers(made));
    // The same changes to what lies in memory and to what is mapped: from the middle, from both ends, and more than a
    // block of new ones.
    for (RepresentationCollection* changed : {&made, &opened}) {
      for (const std::int64_t id : {69, 0, 33, 68}) changed->remove(id);
      for (std::int64_t d = 100; d < 170; ++d) changed->add(d, document_of(width, 3, static_cast<std::uint64_t>(d)));
      for (std::int64_t d = 100; d < 168; ++d) changed->remove(d);
      changed->remove(5);
    }
    CHECK(opened.size() == 67);
    CHECK_FALSE(opened.contains(33));
    CHECK(answers(opened) == answers(made));
    opened.save(path);
    CHECK(answers(opened) == answers(made));
    CHECK(answers(RepresentationCollection::open(path)) == answers(made));
    while (opened.size() > 0) opened.remove(opened.ids().back());
    opened.add(1, document_of(width, 3, 1));
    CHECK(opened.size() == 1);
    RepresentationCollection(width, storage).save(path);
    CHECK(RepresentationCollection::open(path).size() == 0);
  }
}

TEST_CASE("a collection refuses what it cannot hold or read", "[representation]") {
  RepresentationCollection collection(4, RepresentationStorage::f32);
  collection.add(7, document_of(4, 3, 1));
  CHECK_THROWS_WITH(collection.add(7, document_of(4, 3, 1)), Catch::Contains("document 7 is there already"));
  CHECK_THROWS_AS(collection.add(8, document_of(5, 3, 1)), ShapeError);
  Representation huge(4);
  huge.append(std::vector<float>{1e30f, 0, 0, 0});
  CHECK_THROWS_WITH(collection.add(8, huge), Catch::Contains("f32"));
  CHECK(collection.size() == 1);
  CHECK_THROWS_WITH(collection.remove(8), Catch::Contains("no document 8"));
  std::vector<float> out(4);
  CHECK_THROWS_AS(collection.products(std::vector<float>(3), out), ShapeError);
  CHECK_THROWS_AS(collection.scores(std::vector<float>(4), out), ShapeError);
  CHECK_THROWS_AS(collection.products(std::vector<float>(4, std::nanf("")), out), ValueError);
  CHECK_THROWS_AS(RepresentationCollection(0, RepresentationStorage::f32), ValueError);

  const TemporaryDirectory directory;
  const auto path = directory.path() / "documents";
  collection.save(path);
  const std::string bytes = read_file(path);
  const auto refused = [&](std::string changed) {
    write_file_atomically(path, changed);
    CHECK_THROWS_AS(RepresentationCollection::open(path), IoError);
  };
  for (std::size_t cut = 0; cut < bytes.size(); cut += 7) refused(bytes.substr(0, cut));
  refused(bytes + std::string(64, '\0'));
  for (const std::size_t at : {0, 8, 12, 16, 22, 24, 31, 32, 64}) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x41);
    refused(changed);
  }
  std::string damaged = bytes;
  for (std::size_t i = 128; i < 132; ++i) damaged[i] = '\xff';
  write_file_atomically(path, damaged);
  CHECK_THROWS_WITH(RepresentationCollection::open(path).check_contents(), Catch::Contains("document 7"));
  CHECK_THROWS_AS(RepresentationCollection::open(directory.path() / "absent"), IoError);
  CHECK_THROWS_AS(RepresentationCollection::open(directory.path()), IoError);
}

}  // namespace representation_test
