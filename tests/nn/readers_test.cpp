// Every reader against its definition, as plain loops in double.
#include "tally/nn/readers/reader.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "tally/nn/readers/fixed_memory.h"
#include "tally/nn/readers/linear.h"
#include "tally/nn/readers/plain.h"
#include "tally/nn/readers/reader_kinds.h"
#include "tests/nn/module_gradients.h"

namespace readers_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

constexpr std::int64_t kWidth = 6;

struct Holder {
  nn::Reader reader;
  static constexpr void fields(auto& self, auto&& visit) { visit("reader", self.reader); }
};

using Set = std::vector<std::pair<std::string, Json>>;

nn::ReaderChoice choice(const std::string& name, const Set& options = {}) {
  nn::ReaderChoice chosen(nn::reader_kinds(), name);
  for (const auto& [key, value] : options) {
    set_option([&chosen] { return chosen.options.list(); }, name, key, value);
  }
  return chosen;
}

/// With weights of ordinary size, biases too.
Holder make(const std::string& name, const Set& options = {}) {
  Holder holder{nn::make_reader(choice(name, options), kWidth, RngKey{4})};
  std::uint64_t stream = 0;
  for (auto& [path, parameter] : nn::parameters(holder)) {
    Tensor noise(parameter->shape());
    fill_normal(RngKey{6, stream++}, noise, 0, 0.4);
    auto values = parameter->mutable_value().mutable_span<float>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<float>()[i];
  }
  return holder;
}

/// Every kind, and each option of one away from its default.
struct Setting {
  std::string name;
  Set options;
  std::string text() const {
    std::string all = name;
    for (const auto& [key, value] : options) all += ' ' + key + '=' + value.dump();
    return all;
  }
};
std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const nn::ReaderRow& row : nn::reader_kinds()) {
    all.push_back({row.name, {}});
    for (const Option& option : row.options.list().options) {
      for (const std::string& word : option.choices) all.push_back({row.name, {{option.name, word}}});
    }
  }
  all.push_back({"softmax", {{"softmax_scale", 0.3}}});
  all.push_back({"gated_linear", {{"reader_decay", "learned"}, {"reader_gain", "learned"}}});
  all.push_back({"fixed_memory", {{"contexts", 4}}});
  return all;
}

Tensor normal(std::int64_t rows, std::uint64_t stream, DType dtype = DType::f32) {
  Tensor x({rows, kWidth}, dtype);
  fill_normal(RngKey{5, stream}, x, 0, 1);
  return x;
}

Rows rows_of(const Tensor& tensor) {
  const std::vector<double> all = tensor.to_doubles();
  const auto columns = static_cast<std::ptrdiff_t>(tensor.dim(tensor.rank() - 1));
  Rows rows;
  for (auto at = all.begin(); at != all.end(); at += columns) rows.emplace_back(at, at + columns);
  return rows;
}

double dot(const Row& a, const Row& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

Row linear(const nn::Linear& layer, const Row& x) {
  const Rows weight = rows_of(layer.weight.value());
  Row y = layer.bias.defined() ? layer.bias.value().to_doubles() : Row(weight.size());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += dot(weight[i], x);
  return y;
}

Row softmax(Row x) {
  double sum = 0;
  for (double& value : x) sum += value = std::exp(value);
  for (double& value : x) value /= sum;
  return x;
}

/// C q, C being built row by row.
Row through_matrix(const Rows& features, const Row& decay, const Row& gain, const Row& query) {
  const std::size_t k = query.size();
  Rows c(k, Row(k));
  for (std::size_t t = 0; t < features.size(); ++t) {
    for (std::size_t i = 0; i < k; ++i) {
      for (std::size_t j = 0; j < k; ++j) c[i][j] = decay[t] * c[i][j] + gain[t] * features[t][i] * features[t][j];
    }
  }
  Row answer;
  for (const Row& row : c) answer.push_back(dot(row, query));
  return answer;
}

Row normalized(Row answer, nn::ReaderNormalization normalization, std::size_t seen) {
  double divisor = 1;
  if (normalization == nn::ReaderNormalization::length) divisor = static_cast<double>(seen);
  if (normalization == nn::ReaderNormalization::rms) {
    divisor = std::sqrt(dot(answer, answer) / static_cast<double>(answer.size()) + 1e-6);
  }
  for (double& value : answer) value /= divisor;
  return answer;
}

/// The answer of a query that sees these rows and no others; empty for a kind without a definition here.
Row defined(const nn::Reader& reader, const Rows& rows, const Row& query) {
  const std::size_t n = rows.size();
  const auto mean = [&](const Row& weights) {
    Row answer(query.size());
    for (std::size_t t = 0; t < n; ++t) {
      for (std::size_t i = 0; i < answer.size(); ++i) answer[i] += weights[t] * rows[t][i];
    }
    return answer;
  };
  if (reader.as<nn::StateReader>() != nullptr) return rows.back();
  if (const auto* kind = reader.as<nn::SoftmaxReader>()) {
    Row scores;
    for (const Row& row : rows) scores.push_back(kind->scale * dot(row, query));
    return mean(softmax(scores));
  }
  if (const auto* kind = reader.as<nn::LinearReader>()) {
    return normalized(through_matrix(rows, Row(n, 1), Row(n, 1), query), kind->normalization, n);
  }
  if (const auto* kind = reader.as<nn::GatedLinearReader>()) {
    Rows features;
    Row decay, gain;
    for (const Row& row : rows) {
      Row f = linear(kind->feature, row);
      for (std::size_t i = 0; i < f.size(); ++i) f[i] = sigmoid(f[i]) * row[i];
      features.push_back(f);
      decay.push_back(kind->decay.weight.defined() ? sigmoid(linear(kind->decay, row)[0]) : 1);
      gain.push_back(kind->gain.weight.defined() ? sigmoid(linear(kind->gain, row)[0]) : 1);
    }
    return normalized(through_matrix(features, decay, gain, query), kind->normalization, n);
  }
  if (const auto* kind = reader.as<nn::FixedMemoryReader>()) {
    const Row read = softmax(linear(kind->read, query));
    const double contexts = static_cast<double>(read.size());
    Row weights;
    for (std::size_t t = 0; t < n; ++t) {
      Row alpha = softmax(linear(kind->memory, rows[t]));
      if (kind->positions) {
        const double place = static_cast<double>(t + 1) / static_cast<double>(n);
        for (std::size_t k = 0; k < alpha.size(); ++k) {
          const double share = static_cast<double>(k + 1) / contexts;
          alpha[k] *= (1 - share) * (1 - place) + share * place;
        }
      }
      weights.push_back(dot(alpha, read));
    }
    return normalized(mean(weights), kind->normalization, n);
  }
  return {};
}

/// Documents of 5, 0, 1 and 90 rows.
const Offsets& documents() {
  static const Offsets offsets = Offsets::from_lengths(std::vector<std::int64_t>{5, 0, 1, 90});
  return offsets;
}
/// In any order, two at one place.
Tensor places_anywhere() { return Tensor::from<std::int64_t>({60, 3, 0, 5, 60, 95, 4}, {7}); }
/// In the order of the documents, none of the empty one, two of the last.
Tensor places_at_ends() { return Tensor::from<std::int64_t>({4, 5, 95, 95}, {4}); }

Rows by_definition(const nn::Reader& reader, const Tensor& rows, const Tensor& queries, const nn::Lookups& lookups) {
  const Rows all = rows_of(rows), asked = rows_of(queries);
  Rows answers;
  for (std::size_t j = 0; j < asked.size(); ++j) {
    const std::int64_t place = lookups.places.data<std::int64_t>()[j];
    std::int64_t document = 0;
    while (lookups.offsets.at(document + 1) <= place) ++document;
    answers.push_back(
        defined(reader, Rows(all.begin() + lookups.offsets.at(document), all.begin() + place + 1), asked[j]));
  }
  return answers;
}

double difference(const Rows& a, const Rows& b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t t = 0; t < std::min(a.size(), b.size()); ++t) {
    if (a[t].size() != b[t].size()) return INFINITY;
    for (std::size_t i = 0; i < a[t].size(); ++i) {
      most = std::max(most, std::fabs(a[t][i] - b[t][i]) / std::max(1.0, std::fabs(b[t][i])));
    }
  }
  return most;
}

}  // namespace

TEST_CASE("every reader answers as its definition does", "[readers]") {
  const Tensor rows = normal(documents().total(), 1);
  for (const Setting& setting : settings()) {
    INFO(setting.text());
    const Holder holder = make(setting.name, setting.options);
    CHECK(holder.reader.name() == setting.name);
    for (const Tensor& places : {places_anywhere(), places_at_ends()}) {
      const nn::Lookups lookups{documents(), places};
      const Tensor queries = normal(places.dim(0), 2);
      const Tensor answers = holder.reader(rows, queries, lookups, {}).value();
      CHECK(answers.dtype() == DType::f32);
      CHECK(difference(rows_of(answers), by_definition(holder.reader, rows, queries, lookups)) < 2e-5);
    }
  }
}

TEST_CASE("a lookup sees no row behind its place and none of another document", "[readers]") {
  for (const nn::ReaderRow& row : nn::reader_kinds()) {
    INFO(row.name);
    const Holder holder = make(row.name);
    const nn::Lookups lookups{documents(), Tensor::from<std::int64_t>({30, 2}, {2})};
    const Tensor queries = normal(2, 2), rows = normal(documents().total(), 1);
    const Tensor answers = holder.reader(rows, queries, lookups, {}).value();
    Tensor other = normal(documents().total(), 9);
    const auto keep = [&](std::int64_t begin, std::int64_t end) {
      const auto from = rows.span<float>().begin();
      std::copy(from + begin * kWidth, from + end * kWidth, other.mutable_span<float>().begin() + begin * kWidth);
    };
    keep(0, 3);
    keep(6, 31);
    CHECK(holder.reader(other, queries, lookups, {}).value().to_doubles() == answers.to_doubles());
    keep(0, documents().total());
    other.mutable_span<float>()[static_cast<std::size_t>(30 * kWidth)] += 1;
    CHECK(holder.reader(other, queries, lookups, {}).value().to_doubles() != answers.to_doubles());
  }
}

TEST_CASE("gradients of every reader", "[readers]") {
  const Offsets offsets = Offsets::from_lengths(std::vector<std::int64_t>{4, 1, 7});
  for (const Setting& setting : settings()) {
    for (const bool ends : {false, true}) {
      INFO(setting.text() << (ends ? ", whole documents" : ""));
      const nn::Lookups lookups{offsets, ends ? Tensor::from<std::int64_t>({3, 4, 11, 11}, {4})
                                              : Tensor::from<std::int64_t>({9, 1, 4, 9}, {4})};
      const Tensor rows = normal(12, 1, DType::f64), queries = normal(4, 2, DType::f64);
      Holder of_rows = make(setting.name, setting.options), of_queries = of_rows;
      testing::check_module(of_rows, rows, [&](const Var& x) { return of_rows.reader(x, queries, lookups, {}); });
      // Reading without attention has no gradient to check there.
      if (setting.name == "none") continue;
      testing::check_module(of_queries, queries, [&](const Var& q) { return of_queries.reader(rows, q, lookups, {}); });
    }
  }
}

TEST_CASE("walkers enter a reader of any kind", "[readers]") {
  Holder holder = make("gated_linear", {{"reader_decay", "learned"}});
  std::vector<std::string> paths;
  for (const auto& [path, tensor] : nn::state(holder)) paths.push_back(path);
  CHECK(paths == std::vector<std::string>{"reader.feature.weight", "reader.feature.bias", "reader.decay.weight",
                                          "reader.decay.bias"});
  const LeafId id = nn::parameters(holder)[0].parameter->id();
  Holder copy = holder;
  CHECK(nn::parameters(copy)[0].parameter->id() != id);
  nn::parameters(copy)[0].parameter->mutable_value().fill(9);
  CHECK(nn::parameters(holder)[0].parameter->value().to_doubles()[0] != 9);
  const Holder moved = std::move(holder);
  CHECK(std::as_const(moved).reader.width() == kWidth);
  CHECK(nn::count_parameters(moved) == kWidth * kWidth + kWidth + kWidth + 1);
}

TEST_CASE("a learned decay begins near 1", "[readers]") {
  const nn::Reader reader = nn::make_reader(choice("gated_linear", {{"reader_decay", "learned"}}), kWidth, RngKey{4});
  const auto* kind = reader.as<nn::GatedLinearReader>();
  REQUIRE(kind != nullptr);
  const Row at_zero = linear(kind->decay, Row(kWidth));
  CHECK(sigmoid(at_zero[0]) > 0.99);
  CHECK(sigmoid(at_zero[0]) < 1);
}

TEST_CASE("a reader refuses what it cannot read", "[readers]") {
  const Holder holder = make("linear");
  const Tensor rows = normal(documents().total(), 1), queries = normal(2, 2);
  const auto read = [&](const Tensor& r, const Tensor& q, const Tensor& places) {
    return holder.reader(r, q, {documents(), places}, {});
  };
  CHECK_THROWS_WITH(read(rows, queries, Tensor::from<std::int64_t>({96, 3}, {2})), Contains("lookup 0 has 96"));
  CHECK_THROWS_WITH(read(rows, queries, Tensor::from<std::int64_t>({3, -1}, {2})), Contains("lookup 1 has -1"));
  CHECK_THROWS_AS(read(rows, queries, Tensor::from<std::int64_t>({3}, {1})), ShapeError);
  CHECK_THROWS_AS(read(rows, queries, Tensor::from<std::int32_t>({3, 3}, {2})), DTypeError);
  CHECK_THROWS_AS(read(normal(95, 1), queries, Tensor::from<std::int64_t>({3, 3}, {2})), ShapeError);
  CHECK_THROWS_AS(read(rows, Tensor({2, kWidth + 1}), Tensor::from<std::int64_t>({3, 3}, {2})), ShapeError);
  CHECK_THROWS_WITH(nn::Reader()(rows, queries, {documents(), places_at_ends()}, {}), Contains("has no kind"));
  CHECK_THROWS_AS(nn::make_reader(choice("none"), 0, RngKey{1}), ValueError);
  // Weights of positions need to know how long a document is.
  const Holder positions = make("fixed_memory", {{"context_positions", true}});
  CHECK_THROWS_WITH(positions.reader(rows, queries, {documents(), Tensor::from<std::int64_t>({3, 5}, {2})}, {}),
                    Contains("lookups at the ends of documents"));
  // No lookup at all is an ordinary case.
  for (const nn::ReaderRow& row : nn::reader_kinds()) {
    CHECK(make(row.name).reader(rows, Tensor({0, kWidth}), {documents(), Tensor({0}, DType::i64)}, {}).shape() ==
          Shape{0, kWidth});
  }
}

TEST_CASE("weights of positions are those of the definition", "[readers]") {
  const Holder holder = make("fixed_memory", {{"context_positions", true}, {"contexts", 5}});
  const Tensor rows = normal(documents().total(), 1), queries = normal(4, 2);
  const nn::Lookups lookups{documents(), places_at_ends()};
  CHECK(difference(rows_of(holder.reader(rows, queries, lookups, {}).value()),
                   by_definition(holder.reader, rows, queries, lookups)) < 2e-5);
}

}  // namespace readers_test
