#include "tally/core/io/json.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "tests/support/temporary_directory.h"

namespace json_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

std::string refusal(std::string_view text, const JsonLimits& limits = {}) {
  return message_of<IoError>([&] { parse_json(text, "f.json", limits); });
}

std::string nested(int levels) {
  return std::string(static_cast<std::size_t>(levels), '[') + std::string(static_cast<std::size_t>(levels), ']');
}

}  // namespace

TEST_CASE("json reads values of every kind and keeps the order of members", "[json]") {
  const Json value = parse_json(R"( {"z": [1, -2, 3.5, 1e3, true, null], "a": {"é": "\u00e9\n\ud83d\ude00"}} )");
  CHECK(value.members()[0].name == "z");
  CHECK(value.at("z").at(0).as_integer() == 1);
  CHECK(value.at("z").at(3).is(Json::Kind::number));
  CHECK(value.at("z").at(3).as_double() == 1000);
  CHECK(value.at("z").at(4).as_bool());
  CHECK(value.at("z").at(5).is(Json::Kind::null));
  CHECK(value.at("a").at("é").as_string() == "é\n\xF0\x9F\x98\x80");
  CHECK(value.find("b") == nullptr);
  CHECK_THROWS_AS(value.at("b"), IndexError);
  CHECK_THROWS_AS(value.at("z").at(6), IndexError);
  CHECK(value.dump() == R"({"z":[1,-2,3.5,1000.0,true,null],"a":{"é":"é\n😀"}})");
  CHECK(parse_json("9223372036854775807").as_integer() == std::numeric_limits<std::int64_t>::max());
  CHECK(parse_json("-9223372036854775808").as_integer() == std::numeric_limits<std::int64_t>::min());
}

TEST_CASE("json refuses hostile text with line and column", "[json]") {
  CHECK_THAT(refusal(""), Contains("[f.json:1:1] syntax error"));
  CHECK_THAT(refusal("{\n  \"a\": 1,\n  \"b\": x}"), Contains("[f.json:3:8] syntax error"));
  CHECK_THAT(refusal("{\"a\": 1"), Contains("[f.json:1:7] syntax error"));
  CHECK_THAT(refusal("[1] 2"), Contains("[f.json:1:5] syntax error"));
  CHECK_THAT(refusal("[1,]"), Contains("syntax error"));
  CHECK_THAT(refusal("// note\n1"), Contains("syntax error"));
  CHECK_THAT(refusal("\xEF\xBB\xBF{}"), Contains("byte order mark"));
  CHECK_THAT(refusal(std::string_view("{\"a\":1}\0garbage", 15)), Contains("[f.json:1:8] JSON must not contain a NUL"));
  CHECK_THAT(refusal(R"({"a": "x\u0000"})"), Contains("must not contain \\u0000 (at \"a\")"));
  CHECK_THAT(refusal(R"({"a\u0000": 1})"), Contains("keys must not contain \\u0000"));
  CHECK_THAT(refusal("{\"a\": {\"b\": 1,\n \"b\": 2}}"), Contains("[f.json:2:4] duplicate key (at \"a.b\")"));
  CHECK_THAT(refusal(R"({"a": 1, "\u0061": 2})"), Contains("duplicate key"));
  CHECK_THAT(refusal("18446744073709551616"), Contains("does not fit into 64 signed bits"));
  CHECK_THAT(refusal("18446744073709551615"), Contains("does not fit into 64 signed bits"));
  CHECK_THAT(refusal("9223372036854775808"), Contains("does not fit into 64 signed bits"));
  CHECK_THAT(refusal("-9223372036854775809"), Contains("does not fit into 64 signed bits"));
  CHECK_THAT(refusal("[1e400]"), Contains("number overflow"));
  CHECK_THAT(refusal("[NaN]"), Contains("syntax error"));
  for (const std::string_view bad : {"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}) {
    CHECK_THAT(refusal("[\"" + std::string(bad) + "\"]"), Contains("syntax error") && Contains("UTF-8"));
  }
  CHECK_THAT(refusal(R"(["\ud800"])"), Contains("syntax error"));
  CHECK_THAT(refusal("[\"a\nb\"]"), Contains("control character"));
}

TEST_CASE("json bounds depth, size and number of values", "[json]") {
  CHECK(parse_json(nested(64)).dump() == nested(64));
  CHECK_THAT(refusal(nested(65)), Contains("[f.json:1:65] JSON must not nest deeper than 64"));
  CHECK_THAT(refusal(std::string(5'000'000, '[')), Contains("nest deeper"));
  CHECK_THAT(refusal("[1,2,3]", {.max_bytes = 6}), Contains("needs at most 6 bytes of JSON; got 7"));
  CHECK_THAT(refusal("[1,2,3]", {.max_values = 3}), Contains("at most 3 values"));
  CHECK_NOTHROW(parse_json("[1,2,3]", "x", {.max_bytes = 7, .max_values = 4}));
  // A program can't build a deeper one either.
  Json deep = Json::array();
  for (int i = 1; i < 64; ++i) deep = Json::array({deep});
  CHECK_THROWS_AS(Json::array({deep}), ValueError);
  CHECK_THROWS_AS(Json().set("a", deep), ValueError);
}

TEST_CASE("json getters refuse lossy conversion", "[json]") {
  CHECK_THAT(message_of<ValueError>([] { Json(3.9).as<int>("epochs"); }),
             Contains("[epochs] needs an integer; got number 3.9"));
  CHECK_THROWS_AS(Json(3.0).as<int>(), ValueError);
  CHECK_THROWS_AS(Json(true).as<int>(), ValueError);
  CHECK_THROWS_AS(Json("3").as<int>(), ValueError);
  CHECK_THROWS_AS(Json(1).as<bool>(), ValueError);
  CHECK_THROWS_AS(Json(true).as<double>(), ValueError);
  CHECK_THROWS_AS(Json(nullptr).as<double>(), ValueError);
  CHECK_THAT(message_of<ValueError>([] { Json(-1).as<std::uint64_t>(); }), Contains("not negative; got -1"));
  CHECK_THROWS_AS(Json(std::int64_t{5'000'000'000}).as<std::int32_t>(), ValueError);
  CHECK_THROWS_AS(Json(256).as<std::uint8_t>(), ValueError);
  CHECK(Json(255).as<std::uint8_t>() == 255);
  CHECK(Json(std::int64_t{1} << 53).as_double() == 9007199254740992.0);
  CHECK_THROWS_AS(Json((std::int64_t{1} << 53) + 1).as_double(), ValueError);
  CHECK_THROWS_AS(Json(1e300).as<float>(), ValueError);
  CHECK(Json(0.1).as<float>() == 0.1f);
  CHECK_THROWS_AS(Json(std::numeric_limits<std::uint64_t>::max()), ValueError);
  CHECK(Json::array({1, 2}).as<std::vector<int>>() == std::vector<int>{1, 2});
  CHECK_THAT(message_of<ValueError>([] {
               Json::array({1, "x"}).as<std::vector<int>>("sizes");
             }),
             Contains("[sizes[1]]"));
  CHECK(Json(nullptr).as<std::optional<int>>() == std::nullopt);
  CHECK(Json(4).as<std::optional<int>>() == 4);
}

TEST_CASE("json writes numbers that read back to the same bits", "[json]") {
  CHECK(Json(0.1).dump() == "0.1");
  CHECK(Json(-0.0).dump() == "-0.0");
  CHECK(Json(1.0).dump() == "1.0");
  CHECK(Json(1e22).dump() == "1e+22");
  CHECK(Json(5e-324).dump() == "5e-324");
  CHECK(Json(std::nan("")).dump() == "\"NaN\"");
  CHECK(Json(-INFINITY).dump() == "\"-Infinity\"");
  CHECK(std::isnan(parse_json(Json(std::nan("")).dump()).as_double()));
  CHECK(parse_json(Json(INFINITY).dump()).as_double() == INFINITY);
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const double value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    const Json read = parse_json(Json(value).dump());
    REQUIRE(read.is(Json::Kind::number));
    REQUIRE(std::bit_cast<std::uint64_t>(read.as_double()) == std::bit_cast<std::uint64_t>(value));
  }
}

TEST_CASE("json writes strings that any reader takes", "[json]") {
  CHECK(Json("a\"\\\b\f\n\r\t\x01\x1f/é").dump() == R"("a\"\\\b\f\n\r\t\u0001\u001f/é")");
  CHECK(Json("caf\xe9!").dump() == "\"caf\xEF\xBF\xBD!\"");
  CHECK(find_invalid_utf8("é\xf0\x9f\x98\x80") == std::string_view::npos);
  CHECK(find_invalid_utf8("ab\xc3") == 2);
  CHECK(find_invalid_utf8("\xed\xa0\x80") == 0);
  const Json value = Json::object({{"a", Json::array({1, Json::object()})}, {"b", Json::array()}});
  CHECK(value.dump(2) == "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}");
  CHECK(parse_json(value.dump(2)) == value);
}

TEST_CASE("json values are edited by name and by dotted path", "[json]") {
  Json value = Json::object({{"a", 1}});
  value.set("b", std::vector<int>{1, 2});
  value.set("a", "x");
  value.set_at("train.adam.rate", 0.5);
  value.set_at("train.epochs", 3);
  CHECK(value.dump() == R"({"a":"x","b":[1,2],"train":{"adam":{"rate":0.5},"epochs":3}})");
  CHECK_THROWS_AS(value.set_at("a.b", 1), ValueError);
  CHECK_THROWS_AS(value.set_at("train..x", 1), ValueError);
  CHECK_THROWS_AS(value.push_back(1), ValueError);
  Json moved = std::move(value);
  CHECK(value.is(Json::Kind::null));  // NOLINT(bugprone-use-after-move): this is what is promised
  CHECK(moved.size() == 3);
}

TEST_CASE("json files are read and named in errors", "[json]") {
  const TemporaryDirectory directory;
  CHECK(read_json(directory.write("good.json", "{\"a\": 1}\n")).at("a") == Json(1));
  CHECK_THAT(message_of<IoError>([&] { read_json(directory.write("bad.json", "{\n\"a\" 1}")); }),
             Contains("bad.json:2:6]"));
  CHECK_THAT(message_of<IoError>([&] { read_json(directory / "none.json"); }), Contains("none.json] cannot open"));
}

TEST_CASE("json with flipped bytes is read or refused, never worse", "[json]") {
  const std::string valid =
      R"({"a":[1,-2.5e3,"x\u00e9\ud83d\ude00é",{"b":null,"c":[true,false,[[[]]]]}],"d":{"e":1e-7}})";
  std::mt19937 random(2);
  int read = 0, refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = valid;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips)
      text[random() % text.size()] = static_cast<char>(random());
    if (i % 10 == 0) text.resize(random() % text.size());
    try {
      const Json value = parse_json(text);
      REQUIRE(parse_json(value.dump()) == value);
      ++read;
    } catch (const IoError&) {
      ++refused;
    }
  }
  CHECK(read > 100);
  CHECK(refused > 100);
}

}  // namespace json_test
