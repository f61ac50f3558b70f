// What LISA trains: gradients, commitment, codebooks that begin as k-means, and its measures.
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>

#include "tally/autograd/gradient_check.h"
#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/recsys/models/lisa.h"
#include "tests/recsys/lisa_samples.h"

namespace tally::recsys::lisa_training_test {

using namespace lisa_samples;

TEST_CASE("gradients of LISA-Soft, which passes nothing straight through", "[lisa]") {
  struct Case {
    bool learn_decay, soft_query, positions;
  };
  for (const Case& one : {Case{false, false, false},
                          {true, false, false},
                          {false, true, false},
                          {true, true, false},
                          {false, false, true}}) {
    LisaOptions options = small(LisaVariant::soft);
    options.learn_decay = one.learn_decay;
    options.soft_query = one.soft_query;
    if (one.positions) options.position_codebooks = 2, options.position_codewords = 3;
    options.activation = ops::Activation::gelu;
    Lisa model = make_double(options);
    const Sequences batch = some_histories();
    Tensor targets({batch.items.numel()}, DType::i32);
    for (std::int64_t i = 0; i < targets.numel(); ++i) {
      targets.mutable_data<std::int32_t>()[i] = static_cast<std::int32_t>((5 * i + 7) % 11);
    }
    std::vector<CheckedLeaf> leaves;
    for (const auto& [path, parameter] : nn::parameters(model)) {
      leaves.push_back({path, parameter->value(), parameter->id()});
    }
    // Codes change a small step away from some embeddings, so that only narrow steps are smooth: they see less.
    GradientCheckOptions narrow;
    narrow.rtol = 1e-5;
    narrow.atol = 1e-7;
    const GradientReport report = check_gradients(
        [&]() -> std::vector<Var> {
          const BatchItems all = BatchItems::all(11);
          const auto prepared = model.prepare(all);
          return {ops::item_cross_entropy(model.encode(batch, prepared, {}), model.candidate_table(prepared), targets)};
        },
        leaves, narrow);
    for (const LeafReport& leaf : report.leaves) {
      INFO(leaf.name << ": " << leaf.max_relative << ' ' << leaf.numeric_error << ' ' << leaf.hint);
      CHECK(std::string(name_of(leaf.verdict)) == "OK");
    }
  }
}

TEST_CASE("every parameter of LISA's variants is trained by the loss", "[lisa]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::soft, LisaVariant::mini}) {
    LisaOptions options = small(variant);
    options.learn_decay = true;
    options.layers = 2;
    options.commitment = 0.01;
    options.codeword_bias = true;
    options.position_codebooks = 2;
    Lisa model = make_double(options);
    const Sequences batch = some_histories();
    const Tensor targets = batch.items;
    const auto result = value_and_gradients([&] {
      const BatchItems all = BatchItems::all(11);
      const auto prepared = model.prepare(all);
      return ops::item_cross_entropy(model.encode(batch, prepared, {}), model.candidate_table(prepared), targets) +
             model.auxiliary_loss(batch, targets, prepared, {});
    });
    for (const auto& [path, parameter] : nn::parameters(model)) {
      INFO(path);
      REQUIRE(result.gradients.contains(Var(*parameter)));
      double size = 0;
      for (const double value : result.gradients[Var(*parameter)].to_doubles()) size += std::fabs(value);
      CHECK(size > 0);
    }
  }
}

TEST_CASE("commitment pulls embeddings towards their reconstructions and moves nothing else", "[lisa]") {
  LisaOptions options = small(LisaVariant::soft);
  options.commitment = 0.5;
  Lisa model = make_double(options);
  const Sequences batch = Sequences::from({{3, 1, 3}}, 11);
  const auto result = value_and_gradients([&] {
    const BatchItems all = BatchItems::all(11);
    return model.auxiliary_loss(batch, batch.items, model.prepare(all), {});
  });
  const BatchItems all = BatchItems::all(11);
  const LisaPrepared values = model.prepare(all);
  const Matrix embedded = matrix(values.embedded->value()), reconstruction = matrix(values.reconstructions().value());
  double expected = 0;
  for (const std::size_t item : {3, 1, 3}) {
    for (std::size_t k = 0; k < 6; ++k) expected += 0.5 * std::pow(embedded[item][k] - reconstruction[item][k], 2);
  }
  CHECK(result.value.item() == Approx(expected));
  CHECK(result.gradients.contains(Var(model.items.table)));
  CHECK_FALSE(result.gradients.contains(Var(model.quantizer.codebooks)));
}

TEST_CASE("commitment of LISA-Mini holds histories to their codewords and targets to theirs", "[lisa]") {
  LisaOptions options = small(LisaVariant::mini);
  options.commitment = 0.5;
  options.score_scale = 0.3;
  const Lisa model = make_double(options);
  const Sequences batch = Sequences::from({{3, 1, 3}}, 11);
  const Tensor targets = Tensor::from<std::int32_t>({1, 8, -1}, {3});
  const BatchItems all = BatchItems::all(11);
  const auto prepared = model.prepare(all);
  const Matrix table = matrix(model.items.table.value());
  const auto distance = [&](std::size_t item, const nn::VectorQuantizer& quantizer, std::size_t words) {
    std::vector<double> x = table[item];
    for (double& value : x) value *= std::sqrt(6.0);
    const std::vector<double> reconstruction = encode_vector(x, quantizer, words).reconstruction;
    double sum = 0;
    for (std::size_t k = 0; k < 6; ++k) sum += std::pow(x[k] - reconstruction[k], 2);
    return sum;
  };
  double expected = 0;
  for (const std::size_t item : {3, 1, 3}) expected += 0.5 * distance(item, model.quantizer, 4);
  for (const std::size_t item : {1, 8}) expected += 0.5 * distance(item, *model.target_quantizer, 5);
  CHECK(model.auxiliary_loss(batch, targets, prepared, {}).item() == Approx(expected));
}

TEST_CASE("inference keeps no logits of hard codes, and gives what a recorded pass gives", "[lisa]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::mini}) {
    const Lisa model = make_double(small(variant));
    const BatchItems all = BatchItems::all(11);
    const LisaPrepared values = model.prepare(all);
    std::int64_t largest = 0;
    for (const Var& value : Prepared(values).vars())
      largest = std::max(largest, value.rank() == 2 ? value.dim(0) * value.dim(1) : 0);
    CHECK(largest < 11 * 3 * 4);
    const Matrix hidden = matrix(encode(model, some_histories()).value());
    const Matrix candidates = matrix(model.candidate_table(values).value());
    Tape tape;
    const Recording on(tape);
    CHECK(matrix(encode(model, some_histories()).value()) == hidden);
    CHECK(matrix(model.candidate_table(model.prepare(all)).value()) == candidates);
  }
}

TEST_CASE("codebooks from k-means stand nearer to the embeddings than small noise", "[lisa]") {
  const auto error = [](bool kmeans) {
    LisaOptions options = small(LisaVariant::mini);
    options.kmeans = kmeans;
    options.similarity = ops::CodewordSimilarity::squared_distance;
    const Lisa model = Lisa::make(options, RngKey{17});
    const BatchItems all = BatchItems::all(11);
    const LisaPrepared values = model.prepare(all);
    const std::vector<double> embedded = values.embedded->value().to_doubles();
    double sum = 0;
    for (const Var& approximation : {values.reconstructions(), model.candidate_table(values)}) {
      const std::vector<double> reconstruction = approximation.value().to_doubles();
      for (std::size_t i = 0; i < embedded.size(); ++i) sum += std::pow(embedded[i] - reconstruction[i], 2);
    }
    return sum;
  };
  CHECK(error(true) < 0.3 * error(false));
}

TEST_CASE("given other embeddings, codebooks from k-means begin from those", "[lisa]") {
  for (const bool kmeans : {true, false}) {
    LisaOptions options = small(LisaVariant::mini);
    options.kmeans = kmeans;
    options.similarity = ops::CodewordSimilarity::squared_distance;
    Lisa model = Lisa::make(options, RngKey{17});
    const Tensor histories = model.quantizer.codewords().value().clone();
    const Tensor targets = model.target_quantizer->codewords().value().clone();
    fill_normal(RngKey{18}, *nn::state(model).front().tensor, 0, 0.5);
    const double before = model.measures()[2].value;
    model.initialize_from_weights(RngKey{19});
    CHECK(identical(histories, model.quantizer.codewords().value()) == !kmeans);
    CHECK(identical(targets, model.target_quantizer->codewords().value()) == !kmeans);
    if (kmeans) CHECK(model.measures()[2].value < 0.7 * before);
  }
}

TEST_CASE("LISA's measures count each item once", "[lisa]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::mini}) {
    LisaOptions options = small(variant);
    options.similarity = ops::CodewordSimilarity::squared_distance;
    const Lisa model = make_double(options);
    const auto expect = [](const nn::VectorQuantizer& quantizer, const Matrix& x) {
      // The nearest codeword of what is left over, one item after another.
      const auto books = static_cast<std::size_t>(quantizer.options.codebooks);
      const auto words = static_cast<std::size_t>(quantizer.options.codewords);
      const Matrix codewords = matrix(quantizer.codebooks.value());
      std::vector<std::vector<double>> counts(books, std::vector<double>(words));
      double error = 0, size = 0;
      for (const std::vector<double>& item : x) {
        std::vector<double> rest = item;
        for (std::size_t b = 0; b < books; ++b) {
          std::size_t best = 0;
          double least = 1e300;
          for (std::size_t w = 0; w < words; ++w) {
            double distance = 0;
            for (std::size_t k = 0; k < rest.size(); ++k) {
              distance += std::pow(rest[k] - codewords[b * words + w][k], 2);
            }
            if (distance < least) least = distance, best = w;
          }
          for (std::size_t k = 0; k < rest.size(); ++k) rest[k] -= codewords[b * words + best][k];
          counts[b][best] += 1;
        }
        for (const double value : rest) error += value * value;
        for (const double value : item) size += value * value;
      }
      double used = 0, perplexity = 0;
      for (const std::vector<double>& of_book : counts) {
        double entropy = 0;
        for (const double count : of_book) {
          used += count > 0 ? 1 : 0;
          const double share = count / static_cast<double>(x.size());
          if (count > 0) entropy -= share * std::log(share);
        }
        perplexity += std::exp(entropy) / static_cast<double>(books);
      }
      return std::vector<double>{used / static_cast<double>(books * words), perplexity, error / size};
    };
    Matrix embedded = matrix(model.items.table.value());
    for (auto& row : embedded) {
      for (double& value : row) value *= std::sqrt(6.0);
    }
    std::vector<double> expected = expect(model.quantizer, embedded);
    if (model.target_quantizer) {
      for (const double value : expect(*model.target_quantizer, embedded)) expected.push_back(value);
    }
    const std::vector<Measure> measures = model.measures();
    REQUIRE(measures.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      INFO(measures[i].name);
      CHECK(measures[i].value == Approx(expected[i]));
    }
    CHECK(measures[0].name == "codewords_used");
    if (model.target_quantizer) CHECK(measures[3].name == "target_codewords_used");
  }
  // Soft: the error is that of the averages.
  const Lisa soft = make_double(small(LisaVariant::soft));
  const std::vector<double> x = soft.items.table.value().to_doubles();
  const std::vector<double> averages = soft.prepare(BatchItems::all(11)).reconstructions().value().to_doubles();
  double error = 0, size = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    error += std::pow(x[i] * std::sqrt(6.0) - averages[i], 2);
    size += 6 * x[i] * x[i];
  }
  CHECK(soft.measures()[2].value == Approx(error / size));
}

TEST_CASE("LISA refuses options that mean nothing", "[lisa]") {
  for (const auto& spoil : std::vector<std::function<void(LisaOptions&)>>{
           [](LisaOptions& o) { o.codewords = 0; }, [](LisaOptions& o) { o.codebooks = 0; },
           [](LisaOptions& o) { o.layers = 0; }, [](LisaOptions& o) { o.decay = -1; },
           [](LisaOptions& o) {
             o.decay = 0;
             o.learn_decay = true;
           },
           [](LisaOptions& o) { o.temperature = 0; }, [](LisaOptions& o) { o.temperature = 1e-40; },
           [](LisaOptions& o) { o.attention_window = -1; }, [](LisaOptions& o) { o.position_codebooks = -1; },
           [](LisaOptions& o) { o.position_codebooks = 2, o.position_codewords = 0; },
           [](LisaOptions& o) { o.position_codebooks = 2, o.alignment = PositionAlignment::end; },
           [](LisaOptions& o) { o.variant = LisaVariant::mini, o.quantized = LisaQuantized::histories; }}) {
    LisaOptions options = small(LisaVariant::base);
    spoil(options);
    CHECK_THROWS_AS(Lisa::make(options, RngKey{1}), Error);
  }
}

}  // namespace tally::recsys::lisa_training_test
