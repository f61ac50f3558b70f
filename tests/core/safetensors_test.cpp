#include "tally/core/io/safetensors.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "tally/core/io/file.h"
#include "tally/core/memory.h"
#include "tests/support/peak_memory.h"
#include "tests/support/temporary_directory.h"

namespace safetensors_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

const std::string kGolden = TALLY_SOURCE_DIR "/tests/golden/";

std::string length_of(std::uint64_t length) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return bytes;
}

/// A file of this header and `data_bytes` zeros.
std::string file_of(std::string_view header, std::size_t data_bytes = 0) {
  return length_of(header.size()) + std::string(header) + std::string(data_bytes, '\0');
}

std::string refusal(std::string_view bytes, const SafetensorsLimits& limits = {}) {
  return message_of<IoError>([&] { decode_safetensors(bytes, "f", limits); });
}

/// The refusal of one tensor "t" with this entry.
std::string entry_refusal(std::string_view entry, std::size_t data_bytes = 0) {
  return refusal(file_of("{\"t\":" + std::string(entry) + "}", data_bytes));
}

std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return detail::join("{\"dtype\":\"", dtype, "\",\"shape\":", shape, ",\"data_offsets\":", offsets, '}');
}

std::map<std::string, Tensor> sample_tensors() {
  std::map<std::string, Tensor> tensors;
  tensors["b.weight"] = Tensor::arange(6, DType::f32).reshape({2, 3});
  tensors["a.weight"] = Tensor::from({0.5f, 1.5f, 2.5f}, {3});
  tensors["codes"] = Tensor::arange(5, DType::u8);
  tensors["ids"] = Tensor::from<std::int64_t>({-1, 0, 1, 2}, {2, 2});
  tensors["rows"] = Tensor::arange(3, DType::i32).reshape({1, 3});
  tensors["check"] = Tensor::from({0.0, 1.0 / 3.0}, {2});
  tensors["scalar"] = Tensor::scalar(7);
  tensors["none"] = Tensor(Shape{0, 4});
  tensors["quote\"\\\né"] = Tensor::zeros({1}, DType::u8);
  return tensors;
}

}  // namespace

TEST_CASE("safetensors are written as the reference writes them", "[safetensors]") {
  CHECK(encode_safetensors({}) == length_of(8) + "{}      ");
  CHECK(encode_safetensors({}) == read_file(kGolden + "empty.safetensors"));
  const std::map<std::string, std::string> metadata = {{"note", "a \"b\"\né"}};
  CHECK(encode_safetensors(sample_tensors(), metadata) == read_file(kGolden + "written.safetensors"));
  const TemporaryDirectory directory;
  save_safetensors(directory / "f", sample_tensors(), metadata);
  CHECK(read_file(directory / "f") == read_file(kGolden + "written.safetensors"));
  CHECK(directory.entries() == 1);
}

TEST_CASE("safetensors come back as they were, of every type and shape", "[safetensors]") {
  std::map<std::string, Tensor> tensors = sample_tensors();
  for (const DType dtype : {DType::f32, DType::f64, DType::i32, DType::i64, DType::u8}) {
    const std::string name(name_of(dtype));
    tensors[name + ".scalar"] = Tensor::scalar(3, dtype);
    tensors[name + ".long"] = Tensor::arange(100003, dtype == DType::u8 ? DType::i32 : dtype);
    tensors[name + ".empty"] = Tensor(Shape{3, 0, 2}, dtype);
    tensors[name + ".six"] = Tensor::full({1, 2, 1, 2, 1, 2}, 5, dtype);
  }
  tensors["special"] = Tensor::from({NAN, -0.0f, INFINITY, 1e-45f}, {4});
  const TemporaryDirectory directory;
  save_safetensors(directory / "f", tensors, {{"a", "1"}, {"", ""}});
  const TensorFile read = load_safetensors(directory / "f");
  CHECK(read.metadata == std::map<std::string, std::string>{{"a", "1"}, {"", ""}});
  REQUIRE(read.tensors.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    CHECK(identical(read.at(name), tensor));
  }
  CHECK_THAT(message_of<IndexError>([&] { load_safetensors(kGolden + "converted.safetensors").at("x"); }),
             Contains("needs a tensor \"x\"; got bool, f16, i16"));
  // A transposed view is written as the matrix it shows.
  const Tensor transposed = tensors["b.weight"].transpose(0, 1);
  CHECK(identical(decode_safetensors(encode_safetensors({{"t", transposed}})).at("t"), transposed.contiguous()));
}

TEST_CASE("safetensors of other types are converted where every value fits", "[safetensors]") {
  const TensorFile file = load_safetensors(kGolden + "converted.safetensors");
  CHECK(identical(file.at("bool"), Tensor::from<std::uint8_t>({1, 0, 1}, {3})));
  CHECK(identical(file.at("i8"), Tensor::from<std::int32_t>({-128, 127}, {2})));
  CHECK(identical(file.at("i16"), Tensor::from<std::int32_t>({-32768, 32767}, {2})));
  CHECK(identical(file.at("u16"), Tensor::from<std::int32_t>({0, 65535}, {2})));
  CHECK(identical(file.at("f16"), Tensor::from({1.5f, -65504.f, 0x1p-24f, 0x1p-14f, INFINITY, 0.0999755859375f}, {6})));
  CHECK(identical(file.at("u32"), Tensor::from<std::int64_t>({0, 4294967295}, {2})));
  CHECK(identical(file.at("u64"), Tensor::from<std::int64_t>({0, 9223372036854775807}, {2})));
  std::string bytes = file_of("{\"t\":" + entry("BF16", "[2]", "[0,4]") + "}");
  bytes += std::string("\xc0\x3f\x80\xff", 4);
  CHECK(identical(decode_safetensors(bytes).at("t"), Tensor::from({1.5f, -INFINITY}, {2})));
  bytes = file_of("{\"t\":" + entry("U64", "[2]", "[0,16]") + "}", 15) + "\x80";
  CHECK_THAT(refusal(bytes), Contains("tensor \"t\"] holds the unsigned 64-bit value 9223372036854775808"));
}

TEST_CASE("safetensors that are unusual but legal are read", "[safetensors]") {
  CHECK(decode_safetensors(file_of("{}")).tensors.empty());
  CHECK(decode_safetensors(file_of(" \n{} \t")).tensors.empty());
  CHECK(decode_safetensors(file_of("{\"__metadata__\":{}}")).metadata.empty());
  // Empty tensors at any border, several at one offset; elements that are not aligned; header in another order.
  const std::string header = "{\"z\":" + entry("U8", "[0]", "[1,1]") + ",\"y\":" + entry("F64", "[7,0]", "[1,1]") +
                             ",\"f\":" + entry("F32", "[1]", "[1,5]") + ",\"b\":" + entry("U8", "[1]", "[0,1]") +
                             ",\"e\":" + entry("F32", "[0]", "[5,5]") + ",\"s\":" + entry("F32", "[0]", "[0,0]") + "}";
  std::string bytes = file_of(header, 3);
  bytes += "\x80\x3f";
  const TensorFile file = decode_safetensors(bytes);
  CHECK(file.tensors.size() == 6);
  CHECK(file.at("f").item() == 1.0);
  CHECK(file.at("y").shape() == Shape{7, 0});
}

TEST_CASE("safetensors with a bad header length are refused", "[safetensors]") {
  for (const std::size_t size : {0, 1, 7}) {
    CHECK_THAT(refusal(std::string(size, '\0')), Contains("[f] needs at least the 8 bytes of the header length; got"));
  }
  CHECK_THAT(refusal(length_of(0)), Contains("header length of 0"));
  CHECK_THAT(refusal(file_of("{")), Contains("[f: header:1:1] syntax error"));
  for (const std::uint64_t length :
       {std::uint64_t{100'000'001}, std::uint64_t{1} << 63, ~std::uint64_t{0}, ~std::uint64_t{7}}) {
    CHECK_THAT(refusal(length_of(length) + "{}"), Contains(detail::join("the length at offset 0 says ", length)));
  }
  CHECK_THAT(refusal(length_of(3) + "{}"),
             Contains("ends within its header: the length at offset 0 says 3 and 2 bytes"));
}

TEST_CASE("safetensors with a header that is no JSON object of the right form are refused", "[safetensors]") {
  CHECK_THAT(refusal(file_of("{\"\xff\":1}")), Contains("UTF-8"));
  CHECK_THAT(refusal(file_of("{\"\xc0\xaf\":1}")), Contains("UTF-8"));
  CHECK_THAT(refusal(file_of("{\"\xed\xa0\x80\":1}")), Contains("UTF-8"));
  CHECK_THAT(refusal(file_of("{\"a\nb\":1}")), Contains("control character"));
  CHECK_THAT(refusal(file_of(std::string_view("{}\0{}", 5))), Contains("[f: header:1:3] JSON must not contain a NUL"));
  CHECK_THAT(refusal(file_of("{\"t\":{")), Contains("syntax error"));
  CHECK_THAT(refusal(file_of("{} x")), Contains("syntax error"));
  CHECK_THAT(refusal(file_of("\xEF\xBB\xBF{}")), Contains("byte order mark"));
  for (const char* top : {"[]", "\"x\"", "3", "null"}) {
    CHECK_THAT(refusal(file_of(top)), Contains("needs a JSON object; got"));
  }
  const std::string deep(100000, '[');
  CHECK_THAT(refusal(file_of("{\"t\":" + deep)), Contains("must not nest deeper than 64") && Contains("(at \"t\")"));

  const std::string one = entry("U8", "[0]", "[0,0]");
  CHECK_THAT(refusal(file_of("{\"t\":" + one + ",\"t\":" + one + "}")), Contains("duplicate key (at \"t\")"));
  CHECK_THAT(refusal(file_of("{\"a\":" + one + ",\"\\u0061\":" + one + "}")), Contains("duplicate key (at \"a\")"));
  CHECK_THAT(refusal(file_of(R"({"__metadata__":{},"__metadata__":{}})")), Contains("duplicate key"));
  CHECK_THAT(refusal(file_of(R"({"__metadata__":{"a":"1","a":"2"}})")),
             Contains("duplicate key (at \"__metadata__.a\")"));
  CHECK_THAT(entry_refusal(R"({"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]})"),
             Contains("duplicate key (at \"t.dtype\")"));
  CHECK_THAT(entry_refusal(R"({"dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0]})"), Contains("\"t.shape\""));
  CHECK_THAT(entry_refusal(R"({"dtype":"U8","shape":[0],"data_offsets":[0,0],"data_offsets":[0,0]})"),
             Contains("duplicate key (at \"t.data_offsets\")"));
  CHECK_THAT(refusal(file_of(R"({"__metadata__":[]})")), Contains("needs __metadata__ to be an object"));
  CHECK_THAT(refusal(file_of(R"({"__metadata__":{"a":1}})")),
             Contains("needs strings in __metadata__; \"a\" is integer"));

  CHECK_THAT(refusal(file_of("{\"a\":" + one + ",\"b\":" + one + "}"), {.max_tensors = 1}),
             Contains("at most 1 tensors"));
  CHECK_THAT(refusal(file_of("{\"" + std::string(65537, 'n') + "\":" + one + "}")),
             Contains("needs a name of at most 65536 bytes; got 65537"));
  CHECK_THAT(refusal(file_of("{\"a\\u0000b\":" + one + "}")), Contains("must not contain \\u0000"));
}

TEST_CASE("safetensors with a malformed entry are refused", "[safetensors]") {
  for (const char* value : {"1", "[]", "null", "\"x\""}) {
    CHECK_THAT(entry_refusal(value), Contains("[f: tensor \"t\"] needs an object; got"));
  }
  CHECK_THAT(entry_refusal(R"({"shape":[0],"data_offsets":[0,0]})"), Contains("tensor \"t\"] lacks the field dtype"));
  CHECK_THAT(entry_refusal(R"({"dtype":"U8","data_offsets":[0,0]})"), Contains("lacks the field shape"));
  CHECK_THAT(entry_refusal(R"({"dtype":"U8","shape":[0]})"), Contains("lacks the field data_offsets"));
  CHECK_THAT(entry_refusal(R"({"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1})"),
             Contains("unknown field \"x\""));
  for (const char* dtype : {"f32", "F8_E4M3", "C64", "F4", "", "FLOAT"}) {
    CHECK_THAT(entry_refusal(entry(dtype, "[0]", "[0,0]")),
               Contains(detail::join("has the dtype \"", dtype, "\"; known are")));
  }
  CHECK_THAT(entry_refusal(R"({"dtype":3,"shape":[0],"data_offsets":[0,0]})"), Contains("needs dtype to be a string"));

  for (const char* shape : {"{}", "3", "null", "\"[]\""}) {
    CHECK_THAT(entry_refusal(entry("U8", shape, "[0,0]")), Contains("tensor \"t\"] needs shape to be an array; got"));
  }
  for (const char* shape : {"[-1]", "[2.0]", "[2e0]", "[true]", "[\"2\"]", "[null]", "[[2]]"}) {
    CHECK_THAT(entry_refusal(entry("U8", shape, "[0,2]"), 2),
               Contains("needs shape of integers that are not negative; got"));
  }
  CHECK_THAT(entry_refusal(entry("U8", "[9223372036854775808]", "[0,0]")),
             Contains("9223372036854775808 does not fit into 64 signed bits (at \"t.shape\")"));
  CHECK_THAT(entry_refusal(entry("U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]"), 1),
             Contains("needs at most 8 dimensions; got 9"));

  for (const char* offsets : {"[]", "[0]", "[0,0,0]"}) {
    CHECK_THAT(entry_refusal(entry("U8", "[0]", offsets)), Contains("needs two data_offsets; got"));
  }
  for (const char* offsets : {"[-1,0]", "[0.0,0]", "[false,0]", "[\"0\",0]"}) {
    CHECK_THAT(entry_refusal(entry("U8", "[0]", offsets)), Contains("needs data_offsets of integers"));
  }
  CHECK_THAT(entry_refusal(entry("U8", "[0]", "3")), Contains("needs data_offsets to be an array"));
  CHECK_THAT(entry_refusal(entry("U8", "[1]", "[2,1]"), 2), Contains("end before they begin: [2, 1]"));
}

TEST_CASE("safetensors whose sizes do not add up are refused", "[safetensors]") {
  CHECK_THAT(entry_refusal(entry("U8", "[2,18446744073709551614]", "[0,0]")),
             Contains("does not fit into 64 signed bits"));
  for (const char* shape :
       {"[2,9223372036854775807]", "[4611686018427387904,4]", "[9223372036854775807,9223372036854775807,0]",
        "[0,9223372036854775807,9223372036854775807]"}) {
    CHECK_THAT(entry_refusal(entry("U8", shape, "[0,0]")), Contains("size in bytes does not fit into 63 bits"));
  }
  // The product fits; times the size of an element it does not.
  CHECK_THAT(entry_refusal(entry("F64", "[1152921504606846976]", "[0,0]")), Contains("does not fit into 63 bits"));
  CHECK_THAT(entry_refusal(entry("F32", "[2]", "[0,7]"), 7),
             Contains("needs 8 bytes for its shape [2]; its data_offsets [0, 7]"));
  CHECK_THAT(entry_refusal(entry("F32", "[2]", "[0,9]"), 9), Contains("needs 8 bytes"));
  CHECK_THAT(entry_refusal(entry("F32", "[]", "[0,0]")), Contains("needs 4 bytes for its shape []"));

  const auto two = [](std::string_view a, std::string_view b, std::size_t bytes) {
    return refusal(
        file_of(detail::join("{\"a\":", entry("U8", "[2]", a), ",\"b\":", entry("U8", "[2]", b), "}"), bytes));
  };
  CHECK(two("[0,2]", "[2,4]", 4) == "nothing was thrown");
  CHECK(two("[2,4]", "[0,2]", 4) == "nothing was thrown");
  CHECK_THAT(two("[1,3]", "[3,5]", 5), Contains("tensor \"a\"] leaves a hole of 1 bytes before it"));
  CHECK_THAT(two("[0,2]", "[3,5]", 5), Contains("tensor \"b\"] leaves a hole of 1 bytes before it"));
  CHECK_THAT(two("[0,2]", "[1,3]", 3), Contains("tensor \"b\"] overlaps the tensor before it"));
  CHECK_THAT(two("[0,2]", "[0,2]", 2), Contains("overlaps the tensor before it"));
  CHECK_THAT(two("[0,2]", "[2,4]", 5), Contains("[f] has 1 bytes that belong to no tensor, from offset"));
  CHECK_THAT(two("[0,2]", "[2,4]", 2), Contains("tensor \"b\"] ends at offset") && Contains("need 2 bytes more"));
  CHECK_THAT(refusal(file_of("{}", 1)), Contains("1 bytes that belong to no tensor, from offset 10 on"));

  // A file of a few bytes must not make the reader allocate what its header claims.
  release_memory_cache();
  const MemoryScope memory;
  CHECK_THAT(entry_refusal(entry("U8", "[1000000000000]", "[0,1000000000000]"), 10),
             Contains("need 999999999990 bytes more"));
  std::string many = "{\"t0\":" + entry("U8", "[1000000]", "[0,1000000]");
  for (int i = 1; i < 1000; ++i) many += detail::join(",\"t", i, "\":", entry("U8", "[1000000]", "[0,1000000]"));
  CHECK_THAT(refusal(file_of(many + "}", 1000000)), Contains("overlaps"));
  CHECK(memory.peak() == 0);
}

TEST_CASE("safetensors are read from regular files only, and a vanishing end is an error", "[safetensors]") {
  const TemporaryDirectory directory;
  const auto file_refusal = [](const std::filesystem::path& path) {
    return message_of<IoError>([&] { load_safetensors(path); });
  };
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(file_refusal(directory / "pipe"), Contains("needs a regular file; got a pipe"));
  CHECK_THAT(file_refusal(directory.path()), Contains("needs a regular file; got a directory"));
  CHECK_THAT(file_refusal("/dev/zero"), Contains("needs a regular file; got a device"));
  CHECK_THAT(file_refusal(directory / "none"), Contains("cannot open"));
  CHECK_THAT(file_refusal(directory.write("empty", "")), Contains("empty] needs at least the 8 bytes"));
  detail::FileDescriptor file(directory.write("short", "0123"), 0);
  char bytes[8];
  CHECK_THAT(message_of<IoError>([&] { file.read_exactly(bytes, 8, 0); }),
             Contains("ends at offset 4 where 4 more bytes"));
}

TEST_CASE("safetensors that cannot be written are refused", "[safetensors]") {
  const Tensor one = Tensor::scalar(1);
  CHECK_THROWS_AS(encode_safetensors({{"\xff", one}}), ValueError);
  CHECK_THROWS_AS(encode_safetensors({{std::string("a\0b", 3), one}}), ValueError);
  CHECK_THROWS_AS(encode_safetensors({{"__metadata__", one}}), ValueError);
  CHECK_THROWS_AS(encode_safetensors({{"a", Tensor()}}), ValueError);
  CHECK_THROWS_AS(encode_safetensors({{"a", one}}, {{"\xff", ""}}), ValueError);
  const TemporaryDirectory directory;
  save_safetensors(directory / "f", {{"a", one}});
  CHECK_THROWS_AS(save_safetensors(directory / "f", {{"b", one}, {"c", Tensor()}}), ValueError);
  CHECK(load_safetensors(directory / "f").tensors.count("a") == 1);
  CHECK(directory.entries() == 1);
}

TEST_CASE("safetensors with flipped bytes are read or refused, never worse", "[safetensors]") {
  const std::string good = read_file(kGolden + "written.safetensors");
  std::mt19937 random(5);
  int read = 0, refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = good;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (i % 20 == 0) bytes.resize(random() % bytes.size());
    try {
      decode_safetensors(bytes);
      ++read;
    } catch (const IoError&) {
      ++refused;
    }
  }
  CHECK(read > 500);
  CHECK(refused > 5000);
}

TEST_CASE("a header of safetensors takes memory in proportion to itself", "[safetensors]") {
  constexpr std::size_t kSize = std::size_t{4} << 20;
  std::string tensors = "{", numbers = "{\"t\":{\"shape\":[0", metadata = "{\"__metadata__\":{\"a\":\"\"", list = "[0";
  for (int i = 0; tensors.size() < kSize; ++i) {
    tensors += detail::join(i == 0 ? "" : ",", '"', i, "\":", entry("U8", "[0]", "[0,0]"));
  }
  while (numbers.size() < kSize) numbers += ",0";
  for (int i = 0; metadata.size() < kSize; ++i) metadata += detail::join(",\"", i, "\":\"\"");
  while (list.size() < kSize) list += ",0";
  struct Header {
    const char* what;
    std::string text;
    bool is_read;
  };
  for (const Header& header : {Header{"tensors", tensors + "}", true}, Header{"numbers", numbers + "]}}", false},
                               Header{"metadata", metadata + "}}", false}, Header{"list", list + "]", false}}) {
    INFO(header.what);
    const std::string bytes = file_of(header.text);
    const std::optional<std::size_t> most = peak_memory([&] {
      try {
        decode_safetensors(bytes);
        CHECK(header.is_read);
      } catch (const IoError& error) {
        INFO(error.what());
        CHECK_FALSE(header.is_read);
      }
    });
    CHECK(most.value_or(0) < 12 * bytes.size());
  }
}

}  // namespace safetensors_test
