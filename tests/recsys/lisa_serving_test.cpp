// LISA without its embedding table: codes, hidden states, scores and files against the model that was trained.
#include "tally/recsys/models/lisa_serving.h"
#include "tally/recsys/models/sequence_model_of.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/io/safetensors.h"
#include "tally/core/parallel.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tests/support/temporary_directory.h"

namespace tally::recsys::lisa_serving_test {
namespace {

using Catch::Matchers::Contains;

constexpr std::int64_t kItems = 301;

LisaOptions options_of(LisaVariant variant, std::int64_t layers = 1) {
  LisaOptions options;
  options.items = kItems;
  options.width = 24;
  options.window = 12;
  options.layers = layers;
  options.variant = variant;
  options.codebooks = 3;
  options.codewords = 7;
  options.target_codewords = 300;  // codes beyond a byte
  return options;
}

/// Weights of ordinary size, so that nothing hides in small numbers and codes differ.
Lisa make_model(const LisaOptions& options) {
  Lisa model = Lisa::make(options, RngKey{23});
  std::uint64_t stream = 0;
  for (auto& [path, tensor] : nn::state(model)) {
    if (!is_floating(tensor->dtype())) continue;
    Tensor noise(tensor->shape());
    fill_normal(RngKey{5}.fold_in(stream++), noise, 0, 0.2);
    auto values = tensor->mutable_span<float>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<float>()[i];
  }
  return model;
}

Sequences some_histories() {
  std::vector<std::vector<std::int32_t>> histories{{3, 1, 4, 1, 5}, {}, {9}, {2, 6, 5, 3, 5, 8, 10, 0, 300, 7, 7, 7}};
  return Sequences::from(histories, kItems);
}

/// Longer ones too.
Sequences many_histories() {
  std::vector<std::vector<std::int32_t>> histories;
  for (std::uint64_t i = 0; i < 37; ++i) {
    histories.emplace_back();
    for (std::uint64_t j = 0; j < i; ++j) {
      histories.back().push_back(static_cast<std::int32_t>(uniform_below(RngKey{8}, i, j, kItems)));
    }
  }
  return Sequences::from(histories, kItems);
}

void check_near(const Tensor& got, const Tensor& expected, double tolerance) {
  REQUIRE(got.shape() == expected.shape());
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  double largest = 0, scale = 1;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  CHECK(largest <= tolerance * scale);
}

struct Case {
  std::string name;
  LisaOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> all{{"base", options_of(LisaVariant::base)},
                        {"mini", options_of(LisaVariant::mini)},
                        {"base, three layers", options_of(LisaVariant::base, 3)},
                        {"mini, two layers", options_of(LisaVariant::mini, 2)}};
  const auto add = [&](const char* name, auto change) {
    all.push_back({name, options_of(LisaVariant::base, 2)});
    change(all.back().options);
  };
  add("no decay", [](LisaOptions& o) { o.decay = 0; });
  add("trained decay", [](LisaOptions& o) { o.learn_decay = true; });
  add("window", [](LisaOptions& o) { o.decay = 0, o.attention_window = 3; });
  add("dot products, no residual passes", [](LisaOptions& o) {
    o.similarity = ops::CodewordSimilarity::dot;
    o.residual = false;
  });
  add("squared distances, positions from the end, gelu, wider", [](LisaOptions& o) {
    o.similarity = ops::CodewordSimilarity::squared_distance;
    o.alignment = PositionAlignment::end;
    o.activation = ops::Activation::gelu;
    o.inner = 31;
  });
  add("scores of another scale", [](LisaOptions& o) { o.score_scale = 0.1; });
  add("codewords with biases", [](LisaOptions& o) { o.codeword_bias = true; });
  add("attention to positions", [](LisaOptions& o) { o.position_codebooks = 2, o.position_codewords = 5; });
  add("one codebook of many words", [](LisaOptions& o) { o.codebooks = 1, o.codewords = 290; });
  return all;
}

std::string message_of(const std::filesystem::path& path) {
  try {
    LisaServing::load(path);
  } catch (const IoError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("a served LISA model has the codes, hidden states and scores of the trained one", "[lisa-serving]") {
  for (const Case& one : cases()) {
    INFO(one.name);
    const SequenceModelOf<Lisa> model("lisa", make_model(one.options));
    const LisaServing served = LisaServing::from(model.module());
    CHECK(identical(served.codes(), model.module().prepare(BatchItems::all(kItems)).codes));
    CHECK(served.num_items() == kItems);
    CHECK(served.width() == 24);
    CHECK(served.window() == 12);

    const BatchItems all = BatchItems::all(kItems);
    const auto prepared = model.prepare(all);
    const Sequences histories = some_histories();
    check_near(served.encode(histories), model.encode(histories, prepared, {}).value(), 2e-5);
    check_near(served.score(many_histories()), make_ranker(model).score(many_histories()), 2e-5);

    const test::TemporaryDirectory files;
    served.save(files / "model.safetensors", {{"note", "kept"}});
    const LisaServing loaded = LisaServing::load(files / "model.safetensors");
    CHECK(identical(loaded.score(many_histories()), served.score(many_histories())));
    CHECK(loaded.name() == served.name());
    CHECK(load_safetensors(files / "model.safetensors").metadata.at("note") == "kept");
  }
}

TEST_CASE("a served LISA model takes one event at a time", "[lisa-serving]") {
  std::vector<std::int32_t> items;
  for (std::uint64_t t = 0; t < 12; ++t)
    items.push_back(static_cast<std::int32_t>(uniform_below(RngKey{9}, t, 0, kItems)));
  for (const Case& one : cases()) {
    INFO(one.name);
    const SequenceModelOf<Lisa> model("lisa", make_model(one.options));
    const LisaServing served = LisaServing::from(model.module());
    if (one.options.alignment == PositionAlignment::end && one.options.layers > 1) {
      CHECK_THROWS_AS(served.recurrent(), ValueError);
      continue;
    }
    const auto recurrent = served.recurrent();
    CHECK(recurrent->name() == served.name());
    ModelState state = recurrent->initial_state();
    Tensor row({1, 24});
    for (std::size_t t = 0; t < items.size(); ++t) {
      recurrent->step(state, items[t], row.mutable_span<float>());
      const Sequences history =
          Sequences::from({{items.begin(), items.begin() + static_cast<std::ptrdiff_t>(t + 1)}}, kItems);
      check_near(row, served.encode(history).slice(0, history.offsets.length(0) - 1, history.offsets.length(0)), 2e-5);
      Tensor scores({1, kItems});
      recurrent->scorer().score(row.span<float>(), scores.mutable_span<float>());
      check_near(scores, served.score(history), 2e-5);
    }
    // A state is read by the same weights only, however they were come by.
    const test::TemporaryDirectory files;
    served.save(files / "model.safetensors");
    const auto loaded = LisaServing::load(files / "model.safetensors").recurrent();
    CHECK(loaded->fingerprint() == recurrent->fingerprint());
    CHECK(loaded->load_state(state.save()).events() == 12);
    // The trained model has the same recurrent form.
    CHECK(model.recurrent()->fingerprint() == recurrent->fingerprint());
    LisaOptions other = one.options;
    other.items = kItems - 1;
    CHECK_THROWS_AS(LisaServing::from(make_model(other)).recurrent()->load_state(state.save()), ValueError);
  }
}

TEST_CASE("a served LISA model: no row of floats for each item, and every byte accounted for", "[lisa-serving]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::mini}) {
    const LisaServing served = LisaServing::from(make_model(options_of(variant, 2)));
    const test::TemporaryDirectory files;
    served.save(files / "model.safetensors");
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] : load_safetensors(files / "model.safetensors").tensors) {
      INFO(name << ' ' << tensor.shape());
      bytes += static_cast<std::int64_t>(tensor.bytes());
      CHECK((tensor.dim(0) != kItems || !is_floating(tensor.dtype())));
    }
    const LisaServingSize size = served.size();
    CHECK(size.total() == bytes);
    CHECK(size.embedding_table == 4 * kItems * 24);
    // By hand: a byte for a code below 256, four for one of 300 words.
    const bool mini = variant == LisaVariant::mini;
    CHECK(size.codes == kItems * 3 + (mini ? kItems * 3 * 4 : 0));
    CHECK(size.codebooks == 4 * 3 * 7 * 24 + (mini ? 4 * 3 * 300 * 24 : 0));
    CHECK(size.tables == 2 * 4 * (3 * 7 * 7 + 3 * 7 * 24));
    CHECK(size.positions == 4 * 12 * 24);
    // Two blocks of two norms and two linear maps; the second has a quantizer.
    CHECK(size.layers == 2 * 4 * (4 * 24 + 2 * (24 * 24 + 24)) + 4 * (3 * 7 * 24 + 24 * 24));
  }
}

TEST_CASE("scores of a served LISA model: sums in the order of codebooks, the same alone and together",
          "[lisa-serving]") {
  const LisaServing served = LisaServing::from(make_model(options_of(LisaVariant::mini)));
  std::vector<float> hidden(24), scores(kItems);
  for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] = static_cast<float>(std::sin(static_cast<double>(i)));
  served.scorer().score(hidden, scores);
  const std::vector<double> codes = served.target_codes().to_doubles();
  const std::vector<double> words = served.prepared().target_codebooks->value().to_doubles();
  for (std::size_t i = 0; i < scores.size(); ++i) {
    double expected = 0;
    for (std::size_t b = 0; b < 3; ++b) {
      const std::size_t row = b * 300 + static_cast<std::size_t>(codes[i * 3 + b]);
      for (std::size_t d = 0; d < 24; ++d) expected += static_cast<double>(hidden[d]) * words[row * 24 + d];
    }
    CHECK(scores[i] == Approx(expected).margin(1e-5));
  }
  CHECK_THROWS_AS(served.scorer().score(std::span(hidden).first(23), scores), ShapeError);
  CHECK_THROWS_AS(served.scorer().score(hidden, std::span(scores).first(7)), ShapeError);

  const Sequences histories = many_histories();
  const int before = num_threads();
  set_num_threads(1);
  const Tensor together = served.score(histories);
  set_num_threads(8);
  CHECK(identical(served.score(histories), together));
  set_num_threads(before);
  for (std::int64_t i = 0; i < histories.count(); ++i) {
    const std::span<const std::int32_t> history = histories.sequence(i);
    CHECK(identical(served.score(pack_window(std::span(&history, 1))), together.slice(0, i, i + 1).contiguous()));
  }

  // As a ranker: exact top k, seen items left out.
  const auto best = recommend(Ranker(served), histories, {.k = 5});
  REQUIRE(best.size() == 37);
  const float* row = together.data<float>() + 20 * kItems;
  const std::span<const std::int32_t> seen = histories.sequence(20);
  CHECK(best[20] == top_k({row, static_cast<std::size_t>(kItems)}, 5, seen));
}

TEST_CASE("what can't be served without embeddings is refused", "[lisa-serving]") {
  LisaOptions full = options_of(LisaVariant::base);
  full.quantized = LisaQuantized::histories;
  CHECK_THROWS_WITH(LisaServing::from(make_model(full)), Contains("full embeddings"));
  CHECK_THROWS_WITH(LisaServing::from(make_model(options_of(LisaVariant::soft))),
                    Contains("sums of codewords (base or mini"));
  Lisa model = make_model(options_of(LisaVariant::base));
  nn::convert(model, DType::f64);
  CHECK_THROWS_AS(LisaServing::from(model), DTypeError);
  const LisaServing served = LisaServing::from(make_model(options_of(LisaVariant::base)));
  const Sequences longer = Sequences::from({std::vector<std::int32_t>(13, 1)}, kItems);
  CHECK_THROWS_AS(served.encode(longer), ShapeError);
}

TEST_CASE("files that are no served LISA model are refused, whatever they hold", "[lisa-serving]") {
  const test::TemporaryDirectory files;
  const std::filesystem::path path = files / "model.safetensors";
  LisaServing::from(make_model(options_of(LisaVariant::mini, 2))).save(path);
  const TensorFile good = load_safetensors(path);
  const auto after = [&](auto change) {
    TensorFile file = good;
    for (auto& [name, tensor] : file.tensors) tensor = tensor.clone();
    change(file);
    save_safetensors(path, file.tensors, file.metadata);
    return message_of(path);
  };
  CHECK(after([](TensorFile&) {}) == "no error");
  for (const auto& [name, tensor] : good.tensors) {
    INFO(name);
    const std::string& missing = name;
    const std::string message = after([&](TensorFile& file) { file.tensors.erase(missing); });
    CHECK_THAT(message, Contains("needs a tensor") || Contains("does not belong there"));
    CHECK_THAT(after([&](TensorFile& file) {
                 file.tensors[missing] = Tensor::zeros({1, 1, 1, 1});
               }),
               Contains("needs"));
  }
  CHECK_THAT(after([](TensorFile& f) { f.tensors["more"] = Tensor::zeros({1}); }), Contains("'more'"));
  CHECK_THAT(after([](TensorFile& f) { f.tensors["codes"].mutable_data<std::uint8_t>()[5] = 7; }),
             Contains("codes in [0, 7)") && Contains("got 7"));
  CHECK_THAT(after([](TensorFile& f) { f.tensors["target_codes"].mutable_data<std::int32_t>()[5] = -1; }),
             Contains("target_codes in [0, 300)"));
  CHECK_THAT(after([](TensorFile& f) { f.tensors["positions.table"].mutable_data<float>()[5] = NAN; }),
             Contains("finite"));
  CHECK_THAT(after([](TensorFile& f) { f.metadata["format_version"] = "2"; }), Contains("version 2"));
  CHECK_THAT(after([](TensorFile& f) { f.metadata.clear(); }), Contains("is no served LISA model"));
  const std::string settings = good.metadata.at("settings");
  const auto with = [&](const std::string& from, const std::string& to) {
    return after([&](TensorFile& f) {
      std::string text = settings;
      REQUIRE(text.find(from) != std::string::npos);
      f.metadata["settings"] = text.replace(text.find(from), from.size(), to);
    });
  };
  CHECK_THAT(with("relu", "rely"), Contains("did you mean \"relu\""));
  CHECK_THAT(with("\"decay\":", "\"decoy\":"), Contains("decay is missing"));
  CHECK_THAT(with("\"window\":0", "\"window\":-1"), Contains("at least 0"));
  CHECK_THAT(with("{", "["), Contains("settings"));
}

}  // namespace tally::recsys::lisa_serving_test
