// Readers of core/io.
#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/gzip.h"
#include "tally/core/io/json.h"
#include "tally/core/io/line_reader.h"
#include "tally/core/io/npy.h"
#include "tally/core/io/safetensors.h"
#include "tests/fuzz/all_readers.h"
#include "tests/fuzz/scratch.h"

namespace tally::fuzz {
namespace {

Tensor counted(const Shape& shape, DType dtype) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
  return Tensor::from<double>(values, shape).to(dtype);
}

void run_safetensors(std::string_view bytes) {
  answered([&] {
    const TensorFile read = decode_safetensors(bytes);
    const TensorFile again = decode_safetensors(encode_safetensors(read.tensors, read.metadata));
    require(again.metadata == read.metadata && again.tensors.size() == read.tensors.size(), "other names");
    for (const auto& [name, tensor] : read.tensors) require(identical(again.at(name), tensor), "another tensor");
  });
}

std::vector<std::string> safetensors_seeds() {
  return {encode_safetensors({}), encode_safetensors({{"a", counted({2, 3}, DType::f32)}}, {{"format", "x"}}),
          encode_safetensors({{"a", counted({2}, DType::f64)},
                              {"b.c", counted({0, 4}, DType::i64)},
                              {"d", counted({1, 1, 3}, DType::u8)},
                              {"e", counted({}, DType::i32)}},
                             {{"a", ""}, {"\"", "\\"}})};
}

void run_npy(std::string_view bytes) {
  answered([&] {
    const Tensor read = decode_npy(bytes);
    require(identical(decode_npy(encode_npy(read)), read), "another tensor");
  });
}

std::vector<std::string> npy_seeds() {
  return {encode_npy(counted({2, 3}, DType::f32)), encode_npy(counted({}, DType::i64)),
          encode_npy(counted({0, 5}, DType::u8)), encode_npy(counted({4}, DType::f64))};
}

void run_json(std::string_view bytes) {
  answered([&] {
    const Json read = parse_json(bytes);
    require(parse_json(read.dump()) == read && parse_json(read.dump(2)) == read, "another value");
  });
}

std::vector<std::string> json_seeds() {
  return {"{}", "[1,-2,3.5,1e3,true,null,\"a\\u00e9\\n\\ud83d\\ude00\"]",
          R"({"a":{"b":[{},[],""]},"c":-0.0,"d":1e-320})", "9223372036854775807", "\"\\\"\\\\/\\b\\f\""};
}

/// Once as a manifest, and once as what a manifest holds.
void run_manifest(std::string_view bytes) {
  const std::filesystem::path directory = scratch() / "manifest";
  std::filesystem::create_directories(directory);
  scratch().write("manifest/a", "abc");
  scratch().write("manifest/manifest.json", bytes);
  answered([&] { verify_directory(directory); });
  std::filesystem::remove_all(directory);
  answered([&] {
    const Json fields = parse_json(bytes);
    const std::filesystem::path whole = scratch() / "whole";
    AtomicDirectory writer(whole);
    writer.write("a", bytes);
    writer.commit(fields);
    require(verify_directory(whole) == fields, "other fields");
  });
}

std::vector<std::string> manifest_seeds() {
  AtomicDirectory writer(scratch() / "whole");
  writer.write("a", "abc");
  writer.expect_later("later");
  writer.commit(Json::object({{"format", "x"}, {"n", 3}}));
  return {read_file(scratch() / "whole/manifest.json"), "{}", R"({"a":[1.5,{"b":null}]})"};
}

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  LineReader reader(path);
  std::vector<std::string> lines;
  for (std::string_view line; reader.next(line);) lines.emplace_back(line);
  return lines;
}

void run_gzip(std::string_view bytes) {
  const std::filesystem::path path = scratch().write("lines", bytes);
  answered([&] {
    const std::vector<std::string> lines = lines_of(path);
    std::string text;
    for (const std::string& line : lines) text += line + '\n';
    // A carriage return that stood before one at the end of a line would be taken for a part of the end now.
    if (text.find("\r\n") != std::string::npos || text.starts_with("\xEF\xBB\xBF") || text.starts_with("\x1f\x8b"))
      return;
    require(lines_of(scratch().write("again", gzip(text))) == lines, "other lines");
  });
  scratch().write("packed", gzip(bytes));
  if (bytes.starts_with("\x1f\x8b")) return;
  answered([&] { require(lines_of(scratch() / "packed") == lines_of(path), "gzip'd lines are others"); });
}

std::vector<std::string> gzip_seeds() {
  return {gzip("a\nb\r\n\nc"), gzip("") + gzip("x\n") + std::string(3, '\0'), "plain\ntext",
          gzip(std::string(5000, 'z'))};
}

}  // namespace

const Reader kSafetensors{"safetensors", run_safetensors, safetensors_seeds};
const Reader kNpy{"npy", run_npy, npy_seeds};
const Reader kJson{"json", run_json, json_seeds};
const Reader kManifest{"manifest", run_manifest, manifest_seeds};
const Reader kGzip{"gzip", run_gzip, gzip_seeds};

}  // namespace tally::fuzz
