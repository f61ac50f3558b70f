// What is read and written in a program that chose locales with a decimal comma and groups of digits. The tests of the
// rooms run in such a process too: `ctest -C Slow -R locale`.
#include <catch2/catch.hpp>
#include <locale>

#include "tally/core/io/json.h"
#include "tally/core/io/npy.h"
#include "tally/core/io/safetensors.h"
#include "tally/core/parallel_backend.h"
#include "tally/core/report/plot.h"
#include "tally/core/report/table.h"
#include "tests/support/hostile_locale.h"

namespace locale_test {

using namespace tally;

namespace {

std::string written() {
  Table table({{"name", false}, {"value"}});
  table.add_row({"a", format_fixed(1234567.891, 2)});
  table.add_row({"b", format_exact(0.1)});
  table.add_row({format_p_value(0.00012), format_bytes(1.5e6)});
  Plot plot{.title = "t", .series = {{"s", {{1000, 0.5, 0.25}, {20000, 1.5, 0}}}}};
  Tensor tensor({1000, 2});
  tensor.fill(0.5);
  return table.to_markdown() + table.to_csv() + plot_svg(plot) +
         Json::object({{"x", 0.5}, {"n", std::int64_t{1234567}}}).dump() +
         detail::join(1234567, ' ', 0.25, ' ', tensor.shape(), ' ', tensor) + encode_npy(tensor) +
         encode_safetensors({{"a", tensor}});
}

}  // namespace

TEST_CASE("what is written does not depend on locales", "[locale]") {
  const std::string before = written();
  const test::HostileLocale locale;
  CHECK(written() == before);
  CHECK(detail::join(1234567, ' ', 0.25) == "1234567 0.25");
  std::ostringstream out;
  out << Shape{1234, 5};
  CHECK(out.str() == "[1234, 5]");
}

TEST_CASE("what is read does not depend on locales", "[locale]") {
  const test::HostileLocale locale;
  const Json value = parse_json("[1.5, -2.25e3, 1e3, 0.1, 12345678901234567890.5, 3]");
  CHECK(value.at(0).as_double() == 1.5);
  CHECK(value.at(1).as_double() == -2250);
  CHECK(value.at(2).as_double() == 1000);
  CHECK(value.at(3).as_double() == 0.1);
  CHECK(value.at(4).as_double() == 12345678901234567890.5);
  CHECK(value.at(5).is(Json::Kind::integer));
  CHECK(parse_json("1.5").as_double() == 1.5);
  CHECK(parse_json("1e-400").as_double() == 0);
  CHECK(parse_json(" 5e-324 ").as_double() == 5e-324);
  CHECK_THROWS_AS(parse_json("1e400"), IoError);
  CHECK_THROWS_AS(parse_json("12345678901234567890"), IoError);
  CHECK_THROWS_AS(parse_json("1,5"), IoError);
  CHECK(detail::quota_in_cpus("150000 100000") == 2);
}

}  // namespace locale_test
