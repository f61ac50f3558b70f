#include "examples/question_answering/question_task.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "examples/question_answering/associative_retrieval.h"
#include "examples/question_answering/entity_cloze.h"
#include "tally/core/parallel.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/nn/training/trainer.h"
#include "tests/support/temporary_directory.h"

namespace question_task_test {

using namespace question_answering;
using Catch::Matchers::Contains;
using tally::Json;
using tally::RngKey;
namespace nn = tally::nn;
using tally::test::message_of;

namespace {

QuestionSet small_cloze() {
  return draw_entity_cloze({.drawn = {.training = 30, .validation = 4, .test = 4, .questions = 3},
                            .words = 60,
                            .entities = 8,
                            .relations = 8,
                            .least_fillers = 3,
                            .most_fillers = 10});
}

nn::ReaderChoice reader(const std::string& name = "linear") { return {nn::reader_kinds(), name}; }

QuestionModel small_model(const QuestionSet& set, double dropout = 0, const std::string& name = "linear") {
  return QuestionModel::make({.embedding_size = 10, .hidden_size = 12, .dropout = dropout}, reader(name), set,
                             RngKey{3});
}

struct Trained {
  std::vector<double> weights;
  std::vector<double> losses;
};

/// Two epochs, in `directory` if there is one, stopped after so many steps if that is not 0.
Trained train(const QuestionSet& set, const QuestionTaskOptions& options, const std::filesystem::path& directory = {},
              std::int64_t stop_after = 0) {
  QuestionModel model = small_model(set, 0.2, "softmax");
  QuestionTask task(model, set, options, RngKey{4}, Json::object());
  tally::optim::Adam adam({.learning_rate = 0.01});
  nn::TrainerOptions trainer_options;
  trainer_options.epochs = 2;
  trainer_options.key = RngKey{5};
  if (!directory.empty()) trainer_options.files = nn::TrainerFiles::in(directory);
  Trained trained;
  nn::TrainerHooks hooks;
  hooks.on_step = [&](const nn::TrainerProgress&, const nn::StepReport& report) {
    trained.losses.push_back(report.loss);
  };
  hooks.stop_requested = [&] { return static_cast<std::int64_t>(trained.losses.size()) == stop_after; };
  nn::Trainer trainer(task, adam, trainer_options, hooks);
  nn::TrainerProgress progress = trainer.restore().value_or(nn::TrainerProgress{});
  trainer.run(progress);
  for (const auto& [path, tensor] : nn::state(model)) {
    for (const double value : tensor->to_doubles()) trained.weights.push_back(value);
  }
  return trained;
}

}  // namespace

TEST_CASE("shards pack whole documents with their questions", "[question_task]") {
  QuestionSet set = small_cloze();
  set.training[1].questions[0].answer = Vocabulary::kUnknown;
  const std::vector<std::int64_t> order{2, 0, 1, 5};
  const auto shards = make_shards(set.training, order, 150);
  REQUIRE(shards.size() == 2);
  std::int64_t words = 0, question_words = 0, questions = 0;
  std::size_t next = 0;
  for (const QuestionShard& shard : shards) {
    CHECK(shard.first_word == words);
    CHECK(shard.first_question_word == question_words);
    CHECK(shard.first_question == questions);
    std::int64_t asked = 0;
    for (std::int64_t d = 0; d < shard.documents.count(); ++d) {
      const Document& document = set.training[static_cast<std::size_t>(order[next++])];
      const auto* from = shard.words.data<std::int32_t>() + shard.documents.at(d);
      CHECK(std::vector<std::int32_t>(from, from + shard.documents.length(d)) == document.words);
      for (const Question& question : document.questions) {
        const auto* asks = shard.question_words.data<std::int32_t>() + shard.questions.at(asked);
        CHECK(std::vector<std::int32_t>(asks, asks + shard.questions.length(asked)) == question.words);
        CHECK(shard.places.data<std::int64_t>()[asked] == shard.documents.at(d) + question.place);
        CHECK(shard.answers.data<std::int32_t>()[asked] ==
              (question.answer == Vocabulary::kUnknown ? -1 : question.answer));
        ++asked;
      }
    }
    CHECK(asked == shard.count());
    words += shard.documents.total();
    question_words += shard.questions.total();
    questions += asked;
  }
  CHECK(next == 4);
  // One that is longer than a shard may be stands alone.
  CHECK(make_shards(set.training, order, 10).size() == 4);
  CHECK(make_shards(set.training, std::vector<std::int64_t>{}, 10).empty());
}

TEST_CASE("an answer depends on the words before its place alone, and on no other document", "[question_task]") {
  const QuestionSet set = small_cloze();
  for (const nn::ReaderRow& row : nn::reader_kinds()) {
    INFO(row.name);
    const QuestionModel model = small_model(set, 0, row.name);
    std::vector<Document> documents{set.training[0], set.training[1]};
    documents[1].questions[0].place = 30;
    const auto mixed = [&](std::vector<Document> all, std::size_t question) {
      const auto shards = make_shards(all, 1 << 20);
      REQUIRE(shards.size() == 1);
      const auto values = model(shards[0], {}).value().to_doubles();
      const auto first = values.begin() + static_cast<std::ptrdiff_t>(12 * question);
      return std::vector<double>(first, first + 12);
    };
    const auto near = [](const std::vector<double>& a, const std::vector<double>& b) {
      double most = 0;
      for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
      return most < 1e-5;
    };
    const std::vector<double> answer = mixed(documents, 3);
    std::vector<Document> changed = documents;
    changed[0] = set.training[2];
    for (std::size_t at = 31; at < changed[1].words.size(); ++at) changed[1].words[at] = 1;
    CHECK(near(mixed(changed, 3), answer));
    changed[1].words[30] = changed[1].words[30] == 1 ? 2 : 1;
    CHECK_FALSE(near(mixed(changed, 3), answer));
    // The question is read whole.
    changed = documents;
    changed[1].questions[0].words[0] = changed[1].questions[0].words[0] == 1 ? 2 : 1;
    CHECK_FALSE(near(mixed(changed, 3), answer));
  }
}

TEST_CASE("loss and gradients do not depend on shards, nor bits on threads", "[question_task]") {
  const QuestionSet set = small_cloze();
  const auto step = [&](std::int64_t shard_words, int threads) {
    tally::set_num_threads(threads);
    QuestionModel model = small_model(set, 0.3);
    QuestionTask task(model, set, {.batch_questions = 24, .shard_words = shard_words}, RngKey{4}, Json::object());
    const nn::TaskStep result = task.step({.epoch = 1, .index = 1, .key = RngKey{7}});
    std::vector<double> values{result.loss, static_cast<double>(result.targets)};
    for (const auto& [path, parameter] : task.parameters()) {
      const tally::Gradient* gradient = result.gradients.find(parameter->id());
      if (gradient == nullptr) continue;
      for (const double value : tally::to_dense(*gradient).to_doubles()) values.push_back(value);
    }
    tally::set_num_threads(2);
    return values;
  };
  const std::vector<double> one_shard = step(1 << 20, 1), many = step(64, 1);
  CHECK(step(64, 2) == many);
  CHECK(one_shard[1] == 24);
  REQUIRE(one_shard.size() == many.size());
  for (std::size_t i = 0; i < many.size(); ++i) CHECK(many[i] == Approx(one_shard[i]).margin(1e-6).epsilon(1e-4));
}

TEST_CASE("an epoch asks every question once, in an order of its own", "[question_task]") {
  QuestionSet set = small_cloze();
  // Documents of different numbers of questions, so that batches end within.
  for (std::size_t i = 0; i < set.training.size(); ++i) set.training[i].questions.resize(1 + i % 3);
  QuestionModel model = small_model(set);
  for (const std::int64_t batch : {3, 7, 1000}) {
    QuestionTask task(model, set, {.batch_questions = batch, .shard_words = 100}, RngKey{4}, Json::object());
    CHECK(task.samples() == 60);
    CHECK(task.steps() == std::max<std::int64_t>(1, 60 / batch));
    std::vector<std::vector<std::int64_t>> targets(2);
    for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
      std::int64_t asked = 0;
      for (std::int64_t i = 0; i < task.steps(); ++i) {
        const nn::TaskStep step = task.step({.epoch = epoch, .index = i, .key = RngKey{1}});
        CHECK(step.targets >= 1);
        asked += step.targets;
        targets[static_cast<std::size_t>(epoch)].push_back(step.targets);
      }
      CHECK(asked == 60);
    }
    if (batch == 7) CHECK(targets[0] != targets[1]);
  }
  CHECK_THAT(message_of<tally::ConfigError>([&] {
               QuestionTask(model, set, {.batch_questions = 2, .shard_words = 100}, RngKey{4}, Json::object());
             }),
             Contains("at least 3 for a document with as many questions; got 2"));
}

TEST_CASE("accuracy counts the highest scores, and unknown answers as wrong", "[question_task]") {
  QuestionSet set = small_cloze();
  QuestionModel model = small_model(set);
  model.answers.weight.mutable_value().fill(0);
  const std::int32_t always = 3;
  model.answers.bias.mutable_value().mutable_span<float>()[always] = 1;
  for (std::size_t i = 0; i < set.test.size(); ++i) {
    set.test[i].task = static_cast<std::int64_t>(i % 2);
    for (std::size_t j = 0; j < 3; ++j) set.test[i].questions[j].answer = j == 0 || i == 0 ? always : 5;
  }
  set.test[0].questions[1].answer = Vocabulary::kUnknown;
  const Accuracy accuracy = measure_accuracy(model, make_shards(set.test, 70), 3);
  CHECK(accuracy.right == std::vector<std::int64_t>{3, 2, 0});
  CHECK(accuracy.asked == std::vector<std::int64_t>{6, 6, 0});
  CHECK(accuracy.by_task() == std::vector<double>{3.0 / 6, 2.0 / 6, 0});
  CHECK(accuracy.mean() == Approx((3.0 / 6 + 2.0 / 6) / 3));
}

TEST_CASE("a training that was stopped goes on to the same bits", "[question_task]") {
  const QuestionSet set = small_cloze();
  const QuestionTaskOptions options{.batch_questions = 16, .shard_words = 128};
  const Trained whole = train(set, options);
  CHECK(whole.losses.size() == 10);
  const tally::test::TemporaryDirectory directory;
  CHECK(train(set, options, directory.path(), 3).losses.size() == 3);
  const Trained rest = train(set, options, directory.path());
  CHECK(rest.losses == std::vector<double>(whole.losses.begin() + 3, whole.losses.end()));
  CHECK(rest.weights == whole.weights);
}

TEST_CASE("softmax and the linear readers learn to retrieve, and reading the last state alone does worse",
          "[question_task]") {
  const QuestionSet set =
      draw_associative_retrieval({.drawn = {.training = 1500, .validation = 50, .test = 300}, .pairs = 3});
  const auto accuracy = [&](const std::string& name) {
    QuestionModel model = QuestionModel::make({.embedding_size = 24, .hidden_size = 24}, reader(name), set, RngKey{3});
    QuestionTask task(model, set, {}, RngKey{4}, Json::object());
    tally::optim::Adam adam({.learning_rate = 0.01});
    nn::TrainerOptions options;
    options.epochs = 12;
    options.clip_norm = 1;
    options.key = RngKey{5};
    nn::Trainer trainer(task, adam, options);
    nn::TrainerProgress progress;
    trainer.run(progress);
    return measure_accuracy(model, make_shards(set.test, 1024), 1).mean();
  };
  const double none = accuracy("none"), softmax = accuracy("softmax"), linear = accuracy("linear");
  INFO("none " << none << ", softmax " << softmax << ", linear " << linear);
  CHECK(softmax > 0.9);
  CHECK(softmax > none + 0.2);
  CHECK(linear > none);
}

}  // namespace question_task_test
