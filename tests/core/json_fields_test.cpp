#include "tally/core/io/json_fields.h"

#include <catch2/catch.hpp>

#include "tests/support/temporary_directory.h"

namespace json_fields_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;
using Catch::Matchers::EndsWith;

TEST_CASE("fields are read into options with defaults", "[json_fields]") {
  const Json config = parse_json(
      R"({"epochs": 3, "rate": 1, "name": "sasrec", "sizes": [1, 2], "limit": null, "train": {"adam": {"beta": 0.5}}})");
  JsonFields fields(config);
  CHECK(fields.get("epochs", 1) == 3);
  CHECK(fields.get("rate", 0.1) == 1.0);
  CHECK(fields.get("missing", 7) == 7);
  CHECK(fields.get("name", "gru") == "sasrec");
  CHECK(fields.require<std::vector<int>>("sizes") == std::vector<int>{1, 2});
  CHECK(fields.find<int>("limit") == std::nullopt);
  CHECK(fields.find<int>("epochs") == 3);
  CHECK(fields.has("train"));
  JsonFields train = fields.child("train");
  JsonFields adam = train.child("adam");
  CHECK(adam.get("beta", 0.9f) == 0.5f);
  CHECK(train.child("schedule").get("steps", 10) == 10);
  CHECK_NOTHROW(adam.finish());
  CHECK_NOTHROW(train.finish());
  CHECK_NOTHROW(fields.finish());
}

TEST_CASE("errors of fields name the dotted path", "[json_fields]") {
  const Json config =
      parse_json(R"({"train": {"epcohs": 3, "rate": "fast", "steps": -1, "momentum": "NaN", "opt": "adma"}})");
  JsonFields fields(config);
  JsonFields train = fields.child("train");
  CHECK(train.get("epochs", 1) == 1);
  CHECK_THAT(message_of<ConfigError>([&] { train.get("rate", 0.1); }),
             Contains("[train.rate] needs a number; got string"));
  CHECK_THAT(message_of<ConfigError>([&] { train.get("steps", std::size_t{1}); }), Contains("[train.steps]"));
  CHECK_THAT(message_of<ConfigError>([&] { train.get("momentum", 0.1); }), Contains("[train.momentum] needs a finite"));
  CHECK_THAT(message_of<ConfigError>([&] { train.require<int>("seed"); }), Contains("[train.seed] is missing"));
  CHECK_THAT(message_of<ConfigError>([&] { train.child("rate"); }), Contains("[train.rate] needs an object"));
  CHECK_THAT(message_of<ConfigError>([&] {
               train.choice("opt", "adam", {"adam", "sgd"});
             }),
             Contains("[train.opt] does not know \"adma\"; did you mean \"adam\"?"));
  CHECK_THAT(message_of<ConfigError>([&] { train.finish(); }),
             EndsWith("[train.epcohs] is not a known key; did you mean \"epochs\"?"));
  CHECK_THAT(message_of<ConfigError>([] { JsonFields(Json(1)); }), Contains("[config] needs an object"));
  const Json unknown = parse_json(R"({"zzzzzz": 1})");
  JsonFields other(unknown);
  other.get("epochs", 1);
  other.get("rate", 1);
  CHECK_THAT(message_of<ConfigError>([&] { other.finish(); }), EndsWith("is not a known key; known are epochs, rate"));
}

TEST_CASE("the nearest name is found by edits", "[json_fields]") {
  const std::vector<std::string> names = {"learning_rate", "epochs", "batch", "rank"};
  CHECK(nearest_name("learning-rate", names) == "learning_rate");
  CHECK(nearest_name("lerning_rat", names) == "learning_rate");
  CHECK(nearest_name("Epochs", names) == "epochs");
  CHECK(nearest_name("bacth", names) == "batch");
  CHECK(nearest_name("something", names).empty());
  CHECK(nearest_name("", names).empty());
  CHECK(nearest_name("x", {}).empty());
}

}  // namespace json_fields_test
