#include "tally/core/io/npz.h"

#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tally/core/memory.h"
#include "tests/support/temporary_directory.h"

namespace npz_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

const std::string kGolden = TALLY_SOURCE_DIR "/tests/golden/";

std::map<std::string, Tensor> some_tensors() {
  Tensor weight({40, 3});
  for (std::int64_t i = 0; i < 120; ++i) weight.mutable_data<float>()[i] = static_cast<float>(i % 5);
  return {{"ids", Tensor::from<std::int64_t>({-1, 0, 1, 2}, {2, 2})},
          {"none", Tensor(Shape{0, 4}, DType::f64)},
          {"scalar", Tensor::scalar(7.5, DType::f64)},
          {"weight", weight}};
}

bool same(const std::map<std::string, Tensor>& a, const std::map<std::string, Tensor>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const auto& x, const auto& y) {
           return x.first == y.first && identical(x.second, y.second);
         });
}

std::string refusal(std::string_view bytes, const NpzLimits& limits = {}) {
  return message_of<IoError>([&] { decode_npz(bytes, "f", limits); });
}

void set_number(std::string& bytes, std::size_t at, std::uint64_t value, std::size_t width) {
  for (std::size_t i = 0; i < width; ++i) bytes[at + i] = static_cast<char>((value >> (8 * i)) & 0xFF);
}

}  // namespace

TEST_CASE("npz files of NumPy are read, compressed or not", "[npz]") {
  CHECK(same(load_npz(kGolden + "stored.npz"), some_tensors()));
  CHECK(same(load_npz(kGolden + "deflated.npz"), some_tensors()));
  CHECK(read_file(kGolden + "deflated.npz").size() < read_file(kGolden + "stored.npz").size());
}

TEST_CASE("npz files are read as they were written", "[npz]") {
  const TemporaryDirectory directory;
  std::map<std::string, Tensor> tensors = some_tensors();
  tensors["b/weight \u00e9"] = Tensor::arange(5, DType::u8);
  save_npz(directory / "f.npz", tensors);
  CHECK(same(load_npz(directory / "f.npz"), tensors));
  CHECK(read_file(directory / "f.npz") == encode_npz(tensors));
  CHECK(decode_npz(encode_npz({})).empty());
  CHECK_THROWS_WITH(encode_npz({{"x", Tensor()}}), Contains("'x' is not"));
  for (const char* name : {"", "\xff"}) CHECK_THROWS_AS(encode_npz({{name, Tensor({1})}}), ValueError);
}

TEST_CASE("a comment after an npz file's end is passed over", "[npz]") {
  std::string bytes = encode_npz(some_tensors());
  set_number(bytes, bytes.size() - 2, 5, 2);
  CHECK(same(decode_npz(bytes + "hello"), some_tensors()));
  CHECK_THAT(refusal(bytes + "hell"), Contains("no end of a directory"));
}

TEST_CASE("zip64 records are read", "[npz]") {
  // The same archive with its numbers where those beyond 32 bits stand.
  const std::string plain = encode_npz({{"x", Tensor::arange(3, DType::f32)}});
  const std::size_t end = plain.size() - 22, directory = plain.find("PK\x01\x02"), entry = end - directory;
  const auto text = [](std::uint64_t value, std::size_t width) {
    std::string bytes(width, '\0');
    set_number(bytes, 0, value, width);
    return bytes;
  };
  std::string central = plain.substr(directory, entry);
  const std::string sizes = central.substr(24, 4) + std::string(4, '\0') + central.substr(20, 4) + std::string(4, '\0');
  for (const std::size_t at : {20, 24, 42}) set_number(central, at, 0xFFFFFFFF, 4);
  set_number(central, 30, 28, 2);
  central += text(1, 2) + text(24, 2) + sizes + text(0, 8);
  std::string all = plain.substr(0, directory) + central;
  all += text(0x06064b50, 4) + text(44, 8) + text(45, 2) + text(45, 2) + text(0, 8) + text(1, 8) + text(1, 8);
  all += text(central.size(), 8) + text(directory, 8);
  all += text(0x07064b50, 4) + text(0, 4) + text(directory + central.size(), 8) + text(1, 4);
  all +=
      text(0x06054b50, 4) + text(0, 4) + text(0xFFFFFFFF, 4) + text(0xFFFFFFFF, 4) + text(0xFFFFFFFF, 4) + text(0, 2);
  CHECK(identical(decode_npz(all).at("x"), Tensor::arange(3, DType::f32)));
}

TEST_CASE("npz files that are cut off or changed anywhere are refused, or are the same", "[npz]") {
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    const std::string bytes = read_file(kGolden + name);
    for (std::size_t size = 0; size < bytes.size(); ++size) CHECK_FALSE(refusal(bytes.substr(0, size)).empty());
    std::size_t same_ones = 0;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      for (const char change : {'\x01', '\x80', '\xff'}) {
        std::string other = bytes;
        other[at] = static_cast<char>(other[at] ^ change);
        const MemoryScope scope;
        try {
          if (same(decode_npz(other, "f"), some_tensors())) ++same_ones;
        } catch (const IoError& error) {
          CHECK_THAT(error.what(), Catch::Matchers::StartsWith("[f"));
        }
        CHECK(scope.peak() <= 1 << 20);
      }
    }
    CHECK(same_ones < bytes.size());  // times, versions, permissions, and names of what is read
  }
}

TEST_CASE("what an npz member cannot be is told", "[npz]") {
  const std::string bytes = encode_npz({{"x", Tensor::arange(3, DType::f32)}});
  const std::size_t central = bytes.find("PK\x01\x02"), end = bytes.size() - 22;
  const auto with = [&](std::size_t at, std::uint64_t value, std::size_t width) {
    std::string other = bytes;
    set_number(other, at, value, width);
    return other;
  };
  CHECK_THAT(refusal(with(central + 8, 1, 2)), Contains("[f] member 'x.npy' is encrypted"));
  CHECK_THAT(refusal(with(central + 10, 12, 2)), Contains("another method than deflate: 12"));
  CHECK_THAT(refusal(with(central + 16, 7, 4)), Contains("another checksum"));
  CHECK_THAT(refusal(with(central + 24, 1, 4)), Contains("cannot have 1 bytes"));
  CHECK_THAT(refusal(with(central + 42, 5, 4)), Contains("needs the header of member 'x.npy' at offset 5"));
  CHECK_THAT(refusal(with(end + 10, 2, 2)), Contains("members"));
  CHECK_THAT(refusal(with(end + 16, 7, 4)), Contains("its directory"));
  CHECK_THAT(refusal(bytes, {.max_bytes = 100}), Contains("more than 100 bytes"));
  std::string deflated = with(central + 10, 8, 2);
  set_number(deflated, central + 24, 0xFFFFFFF0, 4);
  const MemoryScope scope;
  CHECK_THAT(refusal(deflated), Contains("cannot have 4294967280 bytes"));
  std::string text = bytes;
  for (std::size_t at = 0; (at = text.find("x.npy", at)) != std::string::npos; ++at) text.replace(at, 5, "x.txt");
  CHECK_THAT(refusal(text), Contains("'x.txt' is no npy file"));
}

}  // namespace npz_test
