// Keys without effect, recorded configs of earlier builds, tables with rows of one's own.
#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tally/nn/layers.h"
#include "tally/recsys/config/config.h"
#include "tally/recsys/config/options_page.h"
#include "tally/recsys/study/study.h"
#include "tests/support/temporary_directory.h"

namespace config_keys_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

using Overrides = std::vector<std::string>;

Json json_of(const Overrides& overrides, const Tables& tables = standard()) {
  Json json = Json::object({{"data", Json::object({{"path", "ratings.csv"}})}});
  for (const std::string& each : overrides) apply_override(json, each, tables);
  return json;
}

}  // namespace

TEST_CASE("a key without effect is refused, and told which setting it needs", "[config]") {
  const auto refused = [](const Overrides& overrides, const std::string& message) {
    INFO(overrides.back());
    const std::string said = test::message_of<ConfigError>([&] { parse_config(json_of(overrides)); });
    CHECK_THAT(said, Contains(message));
    // What a run recorded may hold such keys: earlier builds wrote all there were.
    CHECK_NOTHROW(parse_recorded_config(json_of(overrides)));
  };
  refused({"loss_type=CE", "negatives=100"},
          "[train.negatives] has no effect with train.loss_type CE; it needs train.loss_type BCE, gBCE or SSM");
  refused({"gbce_t=0.9"}, "[train.gbce_t] has no effect with train.loss_type CE; it needs train.loss_type gBCE");
  refused({"loss_type=BCE", "gbce_t=0.9"}, "it needs train.loss_type gBCE");
  refused({"loss_type=SSM", "bce_average=none"}, "it needs train.loss_type BCE or gBCE");
  refused({"loss_type=gBCE", "logq=false"}, "it needs train.loss_type SSM");
  refused({"loss_type=BCE", "negative_alpha=0.5"},
          "[train.negative_alpha] has no effect with negative_distribution uniform; it needs negative_distribution "
          "popularity");
  refused({"model.name=gru4rec", "n_heads=2"},
          "[model.n_heads] has no effect with model.name gru4rec; it needs model.name sasrec");
  refused({"model.name=gru4rec", "position_alignment=end"}, "it needs model.name sasrec, lisa or elastic");
  refused({"codebooks=4"},
          "[model.codebooks] has no effect with model.attention softmax; it needs model.attention histogram, or "
          "model.name lisa");
  refused({"model.name=gru4rec", "attention_block=8"}, "it needs model.name sasrec");
  refused({"model.name=lisa", "n_heads=1"}, "it needs model.name sasrec");
  refused({"model.name=lisa", "target_codewords=8"},
          "has no effect with lisa_variant base; it needs lisa_variant mini");
  refused({"model.name=lisa", "soft_query=true"}, "it needs lisa_variant soft");
  refused({"model.name=lisa", "position_codewords=8"}, "has no effect here; it needs position_codebooks above 0");
  refused({"attention_block=8"},
          "has no effect with model.attention softmax; it needs model.attention local, lsh or sinkhorn");
  refused({"attention=local", "lsh_rounds=2"}, "it needs model.attention lsh");
  refused({"attention=lsh", "random_features=2"}, "it needs model.attention linear_favor");
  refused({"attention=linear_elu", "attn_dropout_prob=0.3"},
          "needs model.attention softmax, softmax_materialized or local");
  refused({"window_stride=5"},
          "[train.window_stride] has no effect with train_samples shifted; it needs train_samples window or pieces");
  refused({"train_samples=window", "prefixes_per_user=5"}, "it needs train_samples prefix");
  refused({"learner=sgd", "beta1=0.5"},
          "[train.beta1] has no effect with train.learner sgd; it needs train.learner adam");
  refused({"learner=adagrad", "weight_decay=0.1"}, "it needs train.learner adam or sgd");
  refused({"tie_seed=3"}, "[data.tie_seed] has no effect with tie_rule file_order; it needs tie_rule random");
  refused({"TIME_FIELD=", "tie_rule=item_id"}, "[data.tie_rule] has no effect here; it needs a TIME_FIELD");
  refused({"core=one_pass"}, "[data.core] has no effect here; it needs a user_inter_num_interval or");
  refused({"negatives_exclude=history"},
          "[evaluation.negatives_exclude] has no effect here; it needs mode uniN or popN");
  refused({"negatives_replacement=false"}, "it needs mode uniN or popN");
  refused({"sampling_seed=3"}, "it needs mode uniN or popN, or valid_users or test_users above 0");
  refused({"split=leave_last_out", "valid_users=10"}, "has no effect with data.split leave_last_out");
  for (const char* key : {"eval_step=2", "stopping_step=2", "valid_metric=HR@10"}) {
    refused({"split=leave_last_out", key}, "it needs data.split leave_one_out");
  }
}

TEST_CASE("a key is refused for what it was given, not for its value", "[config]") {
  CHECK_THROWS_WITH(parse_config(json_of({"negatives=1"})), Contains("has no effect"));
  CHECK_NOTHROW(parse_config(json_of({"loss_type=BCE", "negatives=1"})));
  CHECK_NOTHROW(parse_config(json_of({"tie_rule=random", "tie_seed=0"})));
  CHECK_NOTHROW(parse_config(json_of({"core=one_pass", "item_inter_num_interval=[5,inf)"})));
  // A key that no model has stays unknown.
  CHECK_THROWS_WITH(parse_config(parse_json(R"({"data": {"path": "x"}, "model": {"n_hads": 1}})")),
                    Contains("is not a known key") && Contains("n_heads"));
  CHECK_THROWS_WITH(parse_recorded_config(parse_json(R"({"data": {"path": "x"}, "model": {"n_hads": 1}})")),
                    Contains("is not a known key"));
}

TEST_CASE("a config records what has an effect, and that is a config again", "[config]") {
  for (const Overrides& overrides : std::vector<Overrides>{{},
                                                           {"model.name=gru4rec"},
                                                           {"model.name=lisa", "lisa_variant=mini"},
                                                           {"loss_type=SSM"},
                                                           {"learner=adagrad"},
                                                           {"split=leave_last_out"},
                                                           {"attention=lsh"},
                                                           {"mode=uni100"}}) {
    const Json recorded = to_json(parse_config(json_of(overrides)));
    CHECK(to_json(parse_config(recorded)) == recorded);
    CHECK(to_json(parse_recorded_config(recorded)) == recorded);
  }
  const Json gru = to_json(parse_config(json_of({"model.name=gru4rec"}))).at("model");
  CHECK(gru.size() == 9);
  CHECK(gru.find("n_heads") == nullptr);
}

TEST_CASE("the record of an earlier build holds the keys of all models", "[config]") {
  Json old = to_json(parse_config(json_of({"model.name=gru4rec", "hidden_size=12"})));
  old.set_at("model.n_heads", 5);  // no divisor of hidden_size, which was no matter to gru4rec
  old.set_at("model.codebooks", 3);
  old.set_at("train.negatives", 7);
  const RunConfig config = parse_recorded_config(old);
  CHECK(to_json(config).at("model").find("n_heads") == nullptr);
  CHECK(to_json(config) == to_json(parse_config(json_of({"model.name=gru4rec", "hidden_size=12"}))));
  CHECK_THROWS_WITH(parse_config(old), Contains("has no effect"));
}

namespace {

struct MeanOptions {
  std::int64_t items = 0;
  std::int64_t width = 8;
  static void keys(auto& o, auto&& key) {
    key("mean_width", o.width, at_least(2), formerly("mean_size"), "width of everything");
  }
};

/// Scores by the mean of nothing: an item's own embedding.
struct Mean {
  nn::Embedding items;
  std::int64_t window = 50;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("window", self.window);
  }
  static Mean make(const MeanOptions& options, RngKey key) {
    return {.items = nn::Embedding::make({.count = options.items, .width = options.width}, key)};
  }
  Var encode(const Sequences& batch, const nn::Context&) const { return items(batch.items); }
  Var item_table() const { return items.table.var(); }
};

}  // namespace

TEST_CASE("the configs of examples hold no key without effect", "[config]") {
  int configs = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(TALLY_SOURCE_DIR "/examples")) {
    if (entry.path().extension() != ".json") continue;
    if (entry.path().filename().string().rfind("own_", 0) == 0) continue;         // of tables of the example's own
    if (entry.path().parent_path().filename() == "question_answering") continue;  // of no recommender, and its own test
    if (entry.path().parent_path().filename() == "weights") continue;             // maps of names
    INFO(entry.path());
    ++configs;
    const bool study = read_json(entry.path()).find("base") != nullptr;
    CHECK_NOTHROW(study ? static_cast<void>(read_study(entry.path())) : static_cast<void>(load_config(entry.path())));
  }
  CHECK(configs >= 17);
}

TEST_CASE("the page of options is what the lists say", "[config]") {
  CHECK(options_page() == read_file(TALLY_SOURCE_DIR "/docs/options.md"));
}

TEST_CASE("a program adds rows to a copy of the tables", "[config]") {
  Tables tables = standard();
  tables.models.add(model_row<Mean>("mean", "an item's own embedding", MeanOptions{}));
  CHECK_THROWS_WITH(tables.models.add(model_row<Mean>("mean", "again", MeanOptions{})), Contains("already"));
  tables.protocols.add({"mine", "three epochs", "nobody", Json::object({{"train.epochs", 3}, {"model.n_heads", 2}})});
  const RunConfig config = parse_config(json_of({"model.name=mean", "mean_width=6", "protocol=mine"}, tables), tables);
  CHECK(make_sequence_model(config.model, 9, RngKey{1})->width() == 6);
  CHECK(make_sequence_model(config.model, 9, RngKey{1})->name() == "mean");
  CHECK(config.train.epochs == 3);
  CHECK(protocol_label(config) == "mine");
  CHECK_THROWS_WITH(parse_config(json_of({"model.name=mean", "mean_width=1"}, tables), tables),
                    Contains("[model.mean_width] needs at least 2; got 1"));
  CHECK_THROWS_WITH(parse_config(json_of({"mean_width=6"}, tables), tables), Contains("it needs model.name mean"));
  CHECK(standard().models.find("mean") == nullptr);
  CHECK_THROWS_WITH(json_of({"mean_width=6"}), Contains("is no key of a config"));
}

TEST_CASE("a key by a former name counts like today's, from a file, the command line and beside a protocol",
          "[config]") {
  Tables tables = standard();
  tables.models.add(model_row<Mean>("mean", "an item's own embedding", MeanOptions{}));
  tables.protocols.add({"mine", "width 4", "nobody", Json::object({{"model.mean_width", 4}})});
  const Json file = parse_json(R"({"data": {"path": "ratings.csv"}, "model": {"name": "mean", "mean_size": 6}})");
  const auto width = [&](const Json& json) {
    const Json written = to_json(parse_config(json, tables));
    CHECK(written.at("model").find("mean_size") == nullptr);
    return written.at("model").at("mean_width").as<int>();
  };
  const auto with = [&](Json json, const std::string& assignment) {
    apply_override(json, assignment, tables);
    return json;
  };
  CHECK(width(file) == 6);
  CHECK(width(with(file, "mean_width=8")) == 8);  // the command line takes the place of the file's
  CHECK(width(with(file, "model.mean_size=8")) == 8);
  CHECK(width(with(with(file, "mean_size=8"), "mean_width=10")) == 10);
  CHECK(width(with(file, "protocol=mine")) == 6);
  CHECK(width(with(json_of({"model.name=mean"}, tables), "protocol=mine")) == 4);
  Json both = file;
  both.set_at("model.mean_width", 8);
  CHECK_THROWS_WITH(parse_config(both, tables), Contains("[model.mean_size] is a former name of \"mean_width\""));
  CHECK_THROWS_WITH(parse_config(with(file, "mean_size=1"), tables), Contains("needs at least 2; got 1"));
  RunConfig config = parse_config(file, tables);
  config.model.set("mean_size", 12);
  CHECK(to_json(config).at("model").at("mean_width") == Json(12));
}

}  // namespace config_keys_test
