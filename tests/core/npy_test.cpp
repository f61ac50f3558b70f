#include "tally/core/io/npy.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "tally/core/io/file.h"
#include "tally/core/memory.h"
#include "tests/support/temporary_directory.h"

namespace npy_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

const std::string kGolden = TALLY_SOURCE_DIR "/tests/golden/";

/// A version 1 file with this header text and these bytes after it.
std::string file_of(std::string_view header, std::string_view data = "") {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xFF);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + std::string(header) + std::string(data);
}

std::string header_of(std::string_view shape, std::string_view descr = "'|u1'", std::string_view order = "False") {
  return detail::join("{'descr': ", descr, ", 'fortran_order': ", order, ", 'shape': ", shape, ", }");
}

std::string refusal(std::string_view bytes) {
  return message_of<IoError>([&] { decode_npy(bytes, "f"); });
}

}  // namespace

TEST_CASE("npy is written as numpy.save writes it", "[npy]") {
  const auto golden = [](const std::string& name) { return read_file(kGolden + name + ".npy"); };
  CHECK(encode_npy(Tensor::arange(6, DType::f32).reshape({2, 3})) == golden("f4_2x3"));
  CHECK(encode_npy(Tensor::from({0.0, 1 / 3.0, 2 / 3.0, 1.0}, {4})) == golden("f8_4"));
  CHECK(encode_npy(Tensor::scalar(-7, DType::i32)) == golden("i4_scalar"));
  CHECK(encode_npy(Tensor(Shape{0, 5}, DType::i64)) == golden("i8_0x5"));
  CHECK(encode_npy(Tensor::arange(24, DType::u8).reshape({2, 3, 4})) == golden("u1_2x3x4"));
  CHECK(encode_npy(Tensor(Shape{1234567, 0})) == golden("f4_1234567x0"));
  const TemporaryDirectory directory;
  save_npy(directory / "f", Tensor::arange(6, DType::f32).reshape({2, 3}));
  CHECK(read_file(directory / "f") == golden("f4_2x3"));
  CHECK(identical(load_npy(directory / "f"), Tensor::arange(6, DType::f32).reshape({2, 3})));
  const Tensor view = Tensor::arange(6, DType::f32).reshape({2, 3}).transpose(0, 1);
  CHECK(identical(decode_npy(encode_npy(view)), view.contiguous()));
  CHECK_THROWS_AS(encode_npy(Tensor()), ValueError);
}

TEST_CASE("npy files of every type, order and version are read", "[npy]") {
  const auto read = [](const std::string& name) { return load_npy(kGolden + name + ".npy"); };
  CHECK(identical(read("i4_scalar"), Tensor::scalar(-7, DType::i32)));
  CHECK(identical(read("bf16_5"), Tensor::from({1.5F, -65536.F, 0x1.c4p127F, 0x1p-130F, HUGE_VALF}, {5})));
  CHECK(identical(read("i8_0x5"), Tensor(Shape{0, 5}, DType::i64)));
  CHECK(identical(read("f8_4"), Tensor::from({0.0, 1 / 3.0, 2 / 3.0, 1.0}, {4})));
  CHECK(identical(read("bool_3"), Tensor::from<std::uint8_t>({1, 0, 1}, {3})));
  CHECK(identical(read("i1_2"), Tensor::from<std::int32_t>({-128, 127}, {2})));
  CHECK(identical(read("i2_2"), Tensor::from<std::int32_t>({-32768, 32767}, {2})));
  CHECK(identical(read("u2_2"), Tensor::from<std::int32_t>({0, 65535}, {2})));
  CHECK(identical(read("u4_2"), Tensor::from<std::int64_t>({0, 4294967295}, {2})));
  CHECK(identical(read("u8_2"), Tensor::from<std::int64_t>({0, 9223372036854775807}, {2})));
  CHECK(identical(read("f2_6"), Tensor::from({1.5f, -65504.f, 0x1p-24f, 0x1p-14f, INFINITY, 0.0999755859375f}, {6})));
  const Tensor ramp = Tensor::arange(6, DType::f32).reshape({2, 3});
  CHECK(identical(read("f4_2x3"), ramp));
  CHECK(identical(read("big_endian_f4_2x3"), ramp));
  CHECK(identical(read("version2_f4_2x3"), ramp));
  CHECK(identical(read("version3_f4_2x3"), ramp));
  CHECK(identical(read("big_endian_i8_3"), Tensor::from<std::int64_t>({-1, 0, 1}, {3})));
  CHECK(identical(read("fortran_f8_2x3x4"), Tensor::arange(24, DType::f64).reshape({2, 3, 4})));
}

TEST_CASE("npy headers may be written in other ways that mean the same", "[npy]") {
  const Tensor ab = Tensor::from<std::uint8_t>({'a', 'b'}, {2});
  CHECK(identical(decode_npy(file_of(header_of("(2,)"), "ab")), ab));
  CHECK(identical(decode_npy(file_of("{\"shape\":(2,),\"descr\":\"u1\",\"fortran_order\":False}", "ab")), ab));
  CHECK(identical(decode_npy(file_of(header_of("(2,)", "'=u1'", "True") + " \n", "ab")), ab));
  CHECK(decode_npy(file_of(header_of("( 1 , 2 , )"), "ab")).shape() == Shape{1, 2});
  CHECK(decode_npy(file_of(header_of("()"), "a")).item() == 'a');
  // Two elements of '>u2', bytes a b c d.
  CHECK(identical(decode_npy(file_of(header_of("(2,)", "'>u2'"), "abcd")),
                  Tensor::from<std::int32_t>({0x6162, 0x6364}, {2})));
  CHECK(identical(decode_npy(file_of(header_of("(2,)"), "abc"), "f", {.allow_trailing = true}), ab));
}

TEST_CASE("npy files with a bad frame are refused", "[npy]") {
  CHECK_THAT(refusal(""), Contains("[f] needs at least the 10 bytes"));
  CHECK_THAT(refusal("\x93NUMPY\x01"), Contains("needs at least the 10 bytes"));
  CHECK_THAT(refusal("\x93NUMPX\x01 0123"), Contains("is no npy file"));
  for (const char* version : {"\x04", "\x7f"}) {
    CHECK_THAT(refusal(std::string("\x93NUMPY") + version + std::string(20, '\0')),
               Contains("needs npy version 1.0, 2.0 or 3.0"));
  }
  CHECK_THAT(refusal(std::string("\x93NUMPY\0", 7) + std::string(20, '\0')), Contains("got 0.0"));
  CHECK_THAT(refusal("\x93NUMPY\x01\x01" + std::string(20, '\0')), Contains("got 1.1"));
  CHECK_THAT(refusal(std::string("\x93NUMPY\x02\x00\x01\x00", 10)),
             Contains("ends within its header length, at offset 10"));
  CHECK_THAT(refusal(std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff", 12)),
             Contains("at most 65536 bytes; the length at offset 8"));
  CHECK_THAT(refusal(std::string("\x93NUMPY\x01\x00\x10\x00{", 11)), Contains("ends within its header"));
  CHECK_THAT(refusal(file_of("")), Contains("needs '{' in its header, at offset 10"));
}

TEST_CASE("npy files with a malformed header are refused at their offset", "[npy]") {
  const auto header_refusal = [](std::string_view header) { return refusal(file_of(header, "ab")); };
  CHECK_THAT(header_refusal("{}"), Contains("lacks the key 'descr'"));
  CHECK_THAT(header_refusal("{'descr': '|u1', 'shape': (2,)}"), Contains("lacks the key 'fortran_order'"));
  CHECK_THAT(header_refusal("{'descr': '|u1', 'fortran_order': False}"), Contains("lacks the key 'shape'"));
  CHECK_THAT(header_refusal("{'descr': '|u1', 'descr': '|u1'}"), Contains("has the key 'descr' twice"));
  CHECK_THAT(header_refusal("{'extra': 1}"), Contains("[f] has the unknown key 'extra', at offset 19"));
  CHECK_THAT(header_refusal(header_of("(2,)") + "x"), Contains("has text after the dictionary"));
  CHECK_THAT(header_refusal(header_of("(2,)") + std::string(1, '\0')), Contains("has text after the dictionary"));
  CHECK_THAT(header_refusal("{'descr' '|u1'}"), Contains("needs ':'"));
  CHECK_THAT(header_refusal("{'descr': '|u1' 'shape': (2,)}"), Contains("needs '}'"));
  CHECK_THAT(header_refusal("{descr: '|u1'}"), Contains("needs a quoted string"));
  CHECK_THAT(header_refusal("{'descr: 3"), Contains("malformed string"));
  CHECK_THAT(header_refusal("{'descr\": 3"), Contains("malformed string"));
  CHECK_THAT(header_refusal("{'de\\x73cr': 3"), Contains("malformed string"));
  for (const char* order : {"0", "false", "None", "'True'"}) {
    CHECK_THAT(header_refusal(header_of("(2,)", "'|u1'", order)), Contains("needs True or False for fortran_order"));
  }
  for (const char* shape : {"[2]", "2", "'(2,)'", "None"}) {
    CHECK_THAT(header_refusal(header_of(shape)), Contains("needs a tuple (...) for shape"));
  }
  CHECK_THAT(header_refusal(header_of("(2)")), Contains("needs a comma in a tuple of one"));
  for (const char* shape : {"(-1,)", "(0x2,)", "(1_0,)", "(2L,)", "(2.0,)", "(2e0,)", "(True,)", "(,)", "(02,)",
                            "(+2,)", "(2,,)", "(1 2)", "((2,),)"}) {
    CHECK_THAT(header_refusal(header_of(shape)), Contains("for shape") || Contains("comma"));
  }
  CHECK_THAT(header_refusal(header_of("(1,1,1,1,1,1,1,1,2)")), Contains("needs at most 8 dimensions"));
  CHECK_THAT(header_refusal("{'descr': '|u1', 'fortran_order': False, 'shape': (2,"), Contains("for shape"));
}

TEST_CASE("npy files of other element types are refused by name", "[npy]") {
  const auto type_refusal = [](std::string_view descr) {
    return refusal(file_of(header_of("(1,)", descr), "12345678"));
  };
  CHECK_THAT(type_refusal("'|O'"), Contains("holds Python objects (a pickle), which are never loaded"));
  CHECK_THAT(type_refusal("'O'"), Contains("holds Python objects"));
  for (const char* descr : {"'|S8'", "'<U2'", "'<M8[ns]'", "'<m8'", "'<c8'", "'<c16'", "'<f16'", "'|V8'", "''", "'<'",
                            "'|i4'", "'<<i4'", "'i4 '", "'i3'", "'!i4'"}) {
    CHECK_THAT(type_refusal(descr), Contains("[f] has the element type ") && Contains("which is not supported"));
  }
  CHECK_THAT(type_refusal("[('a', '<f4'), ('b', '<f4')]"), Contains("holds records (a structured dtype)"));
  CHECK_THAT(type_refusal("3"), Contains("needs a quoted string"));
  CHECK_THAT(refusal(file_of(header_of("(1,)", "'<u8'"), std::string(7, '\0') + "\x80")), Contains("beyond i64"));
}

TEST_CASE("npy files whose sizes do not add up are refused before anything is allocated", "[npy]") {
  release_memory_cache();
  const MemoryScope memory;
  CHECK_THAT(refusal(file_of(header_of("(3,)"), "ab")),
             Contains("needs 3 bytes of elements from offset") && Contains("got 2"));
  CHECK_THAT(refusal(file_of(header_of("(1,)"), "ab")), Contains("has 1 bytes after its elements, from offset"));
  CHECK_THAT(refusal(file_of(header_of("(0,)"), "a")), Contains("has 1 bytes after its elements"));
  CHECK_THAT(refusal(file_of(header_of("()"))), Contains("needs 1 bytes"));
  CHECK_THAT(refusal(file_of(header_of("(4294967296,)", "'<f8'"), "ab")), Contains("needs 34359738368 bytes"));
  CHECK_THAT(refusal(file_of(header_of("(9223372036854775808,)"))),
             Contains("has a size that does not fit into 63 bits"));
  for (const char* shape : {"(4294967296, 4294967296)", "(9223372036854775807, 2)", "(0, 9223372036854775807, 2)",
                            "(9223372036854775807, 2, 0)"}) {
    CHECK_THAT(refusal(file_of(header_of(shape))),
               Contains("has a shape whose size in bytes does not fit into 63 bits"));
  }
  CHECK_THAT(refusal(file_of(header_of("(1152921504606846976,)", "'<f8'"))), Contains("does not fit into 63 bits"));
  CHECK(memory.peak() == 0);
  const TemporaryDirectory directory;
  REQUIRE(::mkfifo((directory / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(message_of<IoError>([&] { load_npy(directory / "pipe"); }), Contains("needs a regular file; got a pipe"));
  CHECK_THAT(message_of<IoError>([&] { load_npy(directory / "none"); }), Contains("none] cannot open"));
}

TEST_CASE("npy files with flipped bytes are read or refused, never worse", "[npy]") {
  const std::string good = read_file(kGolden + "fortran_f8_2x3x4.npy");
  std::mt19937 random(6);
  int read = 0, refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = good;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    if (i % 20 == 0) bytes.resize(random() % bytes.size());
    try {
      decode_npy(bytes);
      ++read;
    } catch (const IoError&) {
      ++refused;
    }
  }
  CHECK(read > 500);
  CHECK(refused > 5000);
}

}  // namespace npy_test
