#include "tally/core/bytes.h"

#include <catch2/catch.hpp>
#include <vector>

namespace bytes_test {

using namespace tally;
using Catch::Matchers::Contains;

TEST_CASE("values written to bytes are read again", "[bytes]") {
  std::string bytes;
  const std::vector<float> row{1.5f, -2, 0.25f};
  write_value(bytes, std::int32_t{-7});
  write_text(bytes, "name");
  write_values(bytes, std::span<const float>(row));
  ByteReader in(bytes, "sample");
  CHECK(in.read<std::int32_t>() == -7);
  CHECK(in.text() == "name");
  CHECK(in.left() == 12);
  std::vector<float> back(3);
  in.read(std::span(back));
  CHECK(back == row);
  in.expect_end();
  CHECK_THROWS_WITH(in.read<char>(), Contains("[sample]") && Contains("cut off: needs 1 more; got 0"));
  CHECK_THROWS_WITH(ByteReader("xy", "sample").expect_end(), Contains("2 too many"));
  std::string huge;
  write_value(huge, ~std::uint64_t{0});  // a length that nothing could hold
  CHECK_THROWS_AS(ByteReader(huge, "sample").text(), IoError);
}

}  // namespace bytes_test
