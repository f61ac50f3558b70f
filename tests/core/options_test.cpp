// Options by themselves, with structs of the test's own: what a list gives to reading, writing, checking and people.
#include <catch2/catch.hpp>

#include "tally/core/options/option_tables.h"
#include "tally/core/options/option_text.h"

namespace options_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

enum class Shade { light, dark };
constexpr auto words(Shade) {
  using W = Word<Shade>;
  return std::array{W{"light", Shade::light}, W{"dark", Shade::dark}};
}

struct Oil {
  std::int64_t layers = 2;
  double drying = 0.5;
  static void keys(auto& o, auto&& key) {
    key("layers", o.layers, at_least(1), "coats");
    key("drying", o.drying, share(), formerly("dry_rate"), "of a day");
  }
};
struct Water {
  double wetness = 0.25;
  static void keys(auto& o, auto&& key) { key("wetness", o.wetness, rate(), formerly("layers"), "of the paper"); }
};
struct Paint {
  std::string name, summary;
  AnyOptions options;
};
ChoiceTable<Paint> paints() { return {"paint", {{"oil", "slow", Oil{}}, {"water", "quick", Water{}}}}; }

struct Brush {
  double width = 1;
  std::string form = "round";
  std::int64_t hairs = 10;
  static void keys(auto& o, auto&& key) {
    key("width", o.width, above(0), formerly("size"), formerly("breadth"), "in mm");
    key("form", o.form, one_of({"round", "flat"}), "of the tip");
    key("hairs", o.hairs, at_least(2), even(), only_with("form", o.form, {"flat"}), "of the tip");
  }
};

/// Its keys stand among the picture's.
struct Frame {
  bool framed = false;
  double border = 2;
  static void keys(auto& o, auto&& key) {
    key("framed", o.framed, "with a frame");
    key("border", o.border, only_if(o.framed, "framed true"), at_least(0), "of the frame");
  }
};

struct Picture {
  std::int64_t seed = 1;
  std::string title = "untitled";
  Shade shade = Shade::light;
  std::vector<std::int64_t> sizes = {3, 4};
  std::vector<std::string> tags;
  std::optional<double> price;
  bool sideways = false;
  Brush brush;
  Frame frame;
  Choice<Paint> paint{paints(), "oil"};

  static void keys(auto& o, auto&& key) {
    key("seed", o.seed, "of everything random");
    key("title", o.title, TextDomain{"a title", [](const std::string& text) { return !text.empty(); }}, "over it");
    key("shade", o.shade, "of the ground");
    key("sizes", o.sizes, at_least(1), "of the sheets");
    key("tags", o.tags, "for a search");
    key("price", o.price, "of sale");
    key("sideways", o.sideways, one_of({"portrait", "landscape"}), "how it hangs");
    key("brush", o.brush, "the tool");
    key(o.frame);
    key("paint", o.paint, formerly("colour"), "what it is painted with");
    key.effect("brush", "width", only_if(o.title != "finger", "a title other than finger"));
  }
  void check(const std::string& section) const {
    tally::check<ConfigError>(sizes.size() < 4 || price, section, "needs a price for four sheets; got ", sizes.size());
  }
};

/// As a config of a user is read; `recorded` as one that was written before.
Picture read(const std::string& json, bool recorded = false, const std::string& section = "") {
  const Json given = parse_json(json);
  Picture picture;
  JsonFields fields(given, section);
  read_options([&] { return list_options(picture); }, fields, recorded ? nullptr : &given);
  check_options(list_options(picture), section);
  return picture;
}

std::string written(Picture picture) { return to_json(list_options(picture)).dump(); }

std::string refused(const std::string& json, bool recorded = false) {
  try {
    read(json, recorded);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing was refused";
}

}  // namespace

TEST_CASE("options are read where they are given, and keep their defaults elsewhere", "[options]") {
  CHECK(written(read("{}")) ==
        R"({"seed":1,"title":"untitled","shade":"light","sizes":[3,4],"tags":[],"price":null,"sideways":"portrait",)"
        R"("brush":{"width":1.0,"form":"round"},"framed":false,"paint":"oil","layers":2,"drying":0.5})");
  const Picture picture = read(R"({"seed": 7, "shade": "dark", "sizes": [1], "tags": ["a", "b"], "price": 2.5,
    "sideways": "landscape", "brush": {"width": 3, "form": "flat", "hairs": 4}, "framed": true, "border": 0,
    "title": "x", "paint": "water", "wetness": 0})");
  CHECK(picture.seed == 7);
  CHECK(picture.title == "x");
  CHECK(picture.shade == Shade::dark);
  CHECK(picture.sizes == std::vector<std::int64_t>{1});
  CHECK(picture.tags == std::vector<std::string>{"a", "b"});
  CHECK(picture.price == 2.5);
  CHECK(picture.sideways);
  CHECK(picture.brush.width == 3);
  CHECK(picture.brush.form == "flat");
  CHECK(picture.brush.hairs == 4);
  CHECK(picture.frame.border == 0);
  CHECK(picture.paint.name() == "water");
  CHECK(picture.paint.options.as<Water>().wetness == 0);
  CHECK_THROWS_AS(picture.paint.options.as<Oil>(), ValueError);
  CHECK_FALSE(read(R"({"price": null})").price);
}

TEST_CASE("what is written is read again, in the order of the list", "[options]") {
  const std::string text = written(read(
      R"({"paint": "water", "wetness": 0.75, "seed": 3, "framed": true, "border": 0.1, "brush": {"form": "flat"}})"));
  CHECK(text == R"({"seed":3,"title":"untitled","shade":"light","sizes":[3,4],"tags":[],"price":null,)"
                R"("sideways":"portrait","brush":{"width":1.0,"form":"flat","hairs":10},"framed":true,"border":0.1,)"
                R"("paint":"water","wetness":0.75})");
  CHECK(written(read(text)) == text);
}

TEST_CASE("values of another type are refused with their path", "[options]") {
  CHECK_THAT(refused(R"({"seed": "one"})"), Contains("[seed]"));
  CHECK_THAT(refused(R"({"seed": 1.5})"), Contains("[seed]"));
  CHECK_THAT(refused(R"({"title": 3})"), Contains("[title]"));
  CHECK_THAT(refused(R"({"sizes": [1, "two"]})"), Contains("[sizes[1]]"));
  CHECK_THAT(refused(R"({"framed": 1})"), Contains("[framed]"));
  CHECK_THAT(refused(R"({"brush": {"width": []}})"), Contains("[brush.width]"));
  CHECK_THAT(refused(R"({"brush": 3})"), Contains("[brush] needs an object {...}; got"));
}

TEST_CASE("values outside their domain are refused with what is needed", "[options]") {
  CHECK_THAT(refused(R"({"brush": {"width": 0}})"), Contains("[brush.width] needs a value above 0; got 0"));
  CHECK_THAT(refused(R"({"sizes": [2, 0]})"), Contains("[sizes] needs at least 1; got 0"));
  CHECK_THAT(refused(R"({"title": ""})"), Contains("[title] needs a title; got \"\""));
  CHECK_THAT(refused(R"({"drying": 1.01})"), Contains("[drying] needs a value in [0, 1]; got 1.01"));
  CHECK(read(R"({"drying": 1})").paint.options.as<Oil>().drying == 1);
  CHECK_THAT(refused(R"({"paint": "water", "wetness": 1})"), Contains("[wetness] needs a value in [0, 1); got 1"));
  // Every domain of an option counts.
  CHECK_THAT(refused(R"({"brush": {"form": "flat", "hairs": 0}})"), Contains("[brush.hairs] needs at least 2; got 0"));
  CHECK_THAT(refused(R"({"brush": {"form": "flat", "hairs": 3}})"), Contains("[brush.hairs] needs an even number"));
  // One without effect is not looked at.
  CHECK(read(R"({"brush": {"hairs": 3}})", true).brush.hairs == 3);
  // What depends on two options.
  CHECK_THAT(refused(R"({"sizes": [1, 2, 3, 4]})"), Contains("needs a price for four sheets; got 4"));
  CHECK(read(R"({"sizes": [1, 2, 3, 4], "price": 0})").sizes.size() == 4);
}

TEST_CASE("words that are not known are refused with the nearest", "[options]") {
  CHECK_THAT(refused(R"({"shade": "drak"})"), Contains("[shade] does not know \"drak\"; did you mean \"dark\"?"));
  CHECK_THAT(refused(R"({"sideways": "diagonal"})"),
             Contains("[sideways]") && Contains("known are portrait, landscape"));
  CHECK_THAT(refused(R"({"brush": {"form": "flta"}})"), Contains("[brush.form]") && Contains("\"flat\"?"));
  CHECK_THAT(refused(R"({"paint": "oli"})"), Contains("[paint] does not know \"oli\"; did you mean \"oil\"?"));
}

TEST_CASE("unknown keys are refused with the nearest", "[options]") {
  CHECK_THAT(refused(R"({"sede": 3})"), Contains("[sede] is not a known key; did you mean \"seed\"?"));
  CHECK_THAT(refused(R"({"brush": {"witdh": 3}})"),
             Contains("[brush.witdh] is not a known key; did you mean \"width\"?"));
  CHECK_THAT(refused(R"({"sede": 3})", true), Contains("is not a known key"));
}

TEST_CASE("a key without effect is refused where a user wrote it", "[options]") {
  CHECK_THAT(refused(R"({"border": 1})"), Contains("[border] has no effect here; it needs framed true"));
  CHECK_THAT(refused(R"({"brush": {"hairs": 4}})"),
             Contains("[brush.hairs] has no effect with form round; it needs form flat"));
  CHECK_THAT(refused(R"({"title": "finger", "brush": {"width": 4}})"),
             Contains("[brush.width] has no effect") && Contains("it needs a title other than finger"));
  CHECK_THAT(refused(R"({"wetness": 0.1})"), Contains("[wetness] has no effect with paint oil; it needs paint water"));
  CHECK_THAT(refused(R"({"paint": "water", "layers": 3, "drying": 1})"),
             Contains("[drying] has no effect with paint water; it needs paint oil"));
  // What is read first does not decide: the condition is what all keys together say.
  CHECK(read(R"({"border": 1, "framed": true})").frame.border == 1);
  // A recorded config has keys of all choices.
  const Picture recorded = read(R"({"border": 1, "wetness": 0.1, "brush": {"hairs": 4}})", true);
  CHECK(recorded.frame.border == 1);
  CHECK(written(recorded) == written(read("{}")));
}

TEST_CASE("sections know their path", "[options]") {
  const Json given = parse_json(R"({"brush": {"width": -1}})");
  CHECK_THROWS_WITH(read(given.dump(), false, "scene"), Contains("[scene.brush.width] needs a value above 0"));
  CHECK_THROWS_WITH(read(R"({"wetness": 1})", false, "scene"),
                    Contains("[scene.wetness] has no effect with scene.paint oil; it needs scene.paint water"));
}

TEST_CASE("a program adds rows to a copy of a table", "[options]") {
  ChoiceTable<Paint> more = paints();
  more.add({"chalk", "dusty", {}});
  CHECK(more.names() == std::vector<std::string>{"oil", "water", "chalk"});
  CHECK(paints().find("chalk") == nullptr);
  CHECK_THROWS_WITH(more.add({"oil", "again", Oil{}}), Contains("[paint]") && Contains("\"oil\" is there already"));
  CHECK_THROWS_WITH(more.at("chlak"), Contains("[paint] does not know \"chlak\"; did you mean \"chalk\"?"));
  Choice<Paint> choice(more, "oil");
  const AnyOptions kept = choice.options;
  choice.choose("chalk");
  CHECK(choice.options.list().options.empty());
  choice.choose("oil");
  CHECK(choice.options.as<Oil>().layers == kept.as<Oil>().layers);
}

TEST_CASE("options by a former name are read, and written by the name of today", "[options]") {
  const Picture picture = read(R"({"brush": {"size": 5}, "colour": "oil", "dry_rate": 0.25})");
  CHECK(picture.brush.width == 5);
  CHECK(picture.paint.options.as<Oil>().drying == 0.25);
  CHECK(read(R"({"brush": {"breadth": 6}})").brush.width == 6);
  const std::string text = written(picture);
  CHECK_THAT(text, Contains(R"("width":5.0)") && Contains(R"("drying":0.25)") && Contains(R"("paint":"oil")"));
  CHECK_THAT(text, !Contains("size\"") && !Contains("dry_rate") && !Contains("colour"));
  CHECK(read(R"({"colour": "water", "wetness": 0.5})").paint.name() == "water");
  CHECK(read(R"({"dry_rate": 0.25})", true).paint.options.as<Oil>().drying == 0.25);
  // Both at once name both, wherever they stand.
  CHECK_THAT(refused(R"({"drying": 0.1, "dry_rate": 0.1})"),
             Contains("[dry_rate] is a former name of \"drying\", and \"drying\" is given too; leave one of them out"));
  CHECK_THAT(refused(R"({"brush": {"breadth": 1, "width": 1}})"),
             Contains("[brush.breadth] is a former name of \"width\""));
  CHECK_THAT(refused(R"({"paint": "oil", "colour": "oil"})"), Contains("[colour] is a former name of \"paint\""));
  CHECK_THAT(refused(R"({"brush": {"breadth": 1, "size": 1}})"),
             Contains("[brush.breadth]") && Contains("\"size\"") && Contains("\"width\""));
  // Domains and conditions hold for it.
  CHECK_THAT(refused(R"({"dry_rate": 2})"), Contains("[drying] needs a value in [0, 1]; got 2"));
  CHECK_THAT(refused(R"({"paint": "water", "dry_rate": 0.1})"),
             Contains("[dry_rate] has no effect with paint water; it needs paint oil"));
  CHECK_THAT(refused(R"({"title": "finger", "brush": {"size": 4}})"), Contains("[brush.size] has no effect"));
  // A suggestion names today's keys alone.
  CHECK_THAT(refused(R"({"dry_rat": 0.1})"), Contains("is not a known key") && !Contains("\"dry_rate\""));
  // "layers" is a key of oil, and was one of water.
  CHECK(read(R"({"paint": "oil", "layers": 4})").paint.options.as<Oil>().layers == 4);
  CHECK_THAT(refused(R"({"paint": "water", "layers": 4})"), Contains("[wetness] needs a value in [0, 1); got 4"));
  CHECK(read(R"({"layers": 4, "paint": "oil"})", true).paint.options.as<Oil>().layers == 4);
}

TEST_CASE("the options that there are, with those of rows that are not chosen", "[options]") {
  Picture picture;
  const std::vector<KnownOption> known = known_options(list_options(picture));
  std::vector<std::string> keys;
  for (const KnownOption& each : known) keys.push_back(each.key);
  CHECK(keys == std::vector<std::string>{"seed", "title", "shade", "sizes", "tags", "price", "sideways", "brush.width",
                                         "brush.form", "brush.hairs", "framed", "border", "paint", "layers", "drying",
                                         "wetness"});
  const auto meant = [&](const std::string& key) {
    std::vector<std::string> found;
    for (const KnownOption* each : meant_by(key, known)) found.push_back(each->key);
    return found;
  };
  using Keys = std::vector<std::string>;
  CHECK(meant("brush.width") == Keys{"brush.width"});
  CHECK(meant("width") == Keys{"brush.width"});
  CHECK(meant("brush.size") == Keys{"brush.width"});
  CHECK(meant("breadth") == Keys{"brush.width"});
  CHECK(meant("layers") == Keys{"layers"});  // not what was called so before
  CHECK(meant("nothing").empty());
  const OptionList list = list_options(picture);
  CHECK(list.find("colour") == nullptr);
  CHECK(list.find_written("colour") == list.find("paint"));
}

TEST_CASE("options for people say type, domain, effect and former names", "[options]") {
  Brush brush;
  CHECK(options_text(list_options(brush)) ==
        "  width  1.0      in mm (number, a value above 0; formerly size; formerly breadth)\n"
        "  form   \"round\"  of the tip (round or flat)\n"
        "  hairs  10       of the tip (integer, at least 2, an even number; with form flat)\n");
  CHECK_THAT(options_markdown(list_options(brush), {"form"}),
             Contains("| `hairs` | `10` | integer, at least 2, an even number; with form flat | of the tip |\n") &&
                 !Contains("`form`"));
}

}  // namespace options_test
