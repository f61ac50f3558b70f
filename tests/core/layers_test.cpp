#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "layers_checker.h"

namespace layers_test {

namespace fs = std::filesystem;
using tally::layers::cycles;
using tally::layers::violations;

TEST_CASE("the tree keeps to its rooms", "[layers]") {
  const fs::path root = TALLY_SOURCE_DIR;
  std::map<std::string, std::string> tree;
  for (const char* room : {"core", "autograd", "ops", "nn", "recsys", "tools", "examples", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / room)) {
      const fs::path& file = entry.path();
      if (file.extension() != ".h" && file.extension() != ".cpp") continue;
      std::stringstream text;
      text << std::ifstream(file).rdbuf();
      const std::string path = fs::relative(file, root).string();
      tree[path] = text.str();
      // What a test includes from its own folder is its own business, as are the programs of tests/packaging.
      if (file.string().find("/packaging/") != std::string::npos) continue;
      for (const std::string& problem : violations(path, tree[path])) FAIL_CHECK(problem);
    }
  }
  CHECK(tree.size() > 400);
  for (const std::string& problem : cycles(tree)) FAIL_CHECK(problem);
}

TEST_CASE("every member of a struct of options has an initial value", "[layers]") {
  // So that `{.epochs = 3}` leaves the others out without a warning of -Wextra in a program that uses the library.
  const std::regex begin(R"(^( *)struct \w*(?:Options|Hooks|Limits|Files|Settings|Format) (?:final )?\{$)");
  const std::regex member(R"(^ *(?:std::)?[A-Za-z_][\w:]*(?:<.*>)? \w+(?:, \w+)*;.*)");
  const std::regex no_member(R"(^ *(?:static|using|friend|return|explicit|struct|enum|operator|//).*)");
  int structs = 0;
  for (const char* room : {"core", "autograd", "ops", "nn", "recsys", "tools"}) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(TALLY_SOURCE_DIR) / room)) {
      if (entry.path().extension() != ".h" || entry.path().string().find("/kernels/") != std::string::npos) continue;
      std::ifstream in(entry.path());
      std::string indentation;
      bool inside = false;
      for (std::string line; std::getline(in, line);) {
        if (std::smatch found; !inside && std::regex_match(line, found, begin)) {
          inside = true, indentation = found[1].str(), ++structs;
        } else if (inside && line == indentation + "};") {
          inside = false;
        } else if (inside && line.find_first_not_of(' ') == indentation.size() + 2 && std::regex_match(line, member) &&
                   !std::regex_match(line, no_member)) {
          FAIL_CHECK(entry.path() << ": " << line);
        }
      }
    }
  }
  CHECK(structs > 50);
}

namespace {

std::size_t count(const char* path, const std::string& text) {
  const bool header = std::string(path).ends_with(".h");
  return violations(path, (header ? "#pragma once\n" : "") + text).size();
}

}  // namespace

TEST_CASE("the checker of rooms finds planted violations", "[layers]") {
  SECTION("rooms above") {
    CHECK(count("core/tensor.cpp", "#include \"tally/autograd/tape.h\"\n") == 1);
    CHECK(count("autograd/tape.h", "#include \"tally/ops/tensor/matmul.h\"\n") == 1);
    CHECK(count("ops/tensor/matmul.cpp", "  #  include \"tally/nn/linear.h\"  // why\n") == 1);
    CHECK(count("nn/linear.h", "#include \"tally/recsys/model.h\"\n") == 1);
    CHECK(count("recsys/model.cpp", "#include \"tally/tools/cli.h\"\n") == 1);
    CHECK(count("recsys/model.cpp", "#include \"tally/nn/linear.h\"\n#include \"tally/core/tensor.h\"\n") == 0);
    CHECK(count("ops/tensor/matmul.h", "#include \"tally/autograd/var.h\"\n") == 0);
    CHECK(count("tests/ops/matmul_test.cpp", "#include \"tally/recsys/model.h\"\n") == 0);
  }
  SECTION("private headers") {
    CHECK(count("nn/linear.cpp", "#include \"tally/ops/kernels/softmax.h\"\n") == 1);
    CHECK(count("ops/tensor/softmax.h", "#include \"tally/ops/kernels/softmax.h\"\n") == 1);
    CHECK(count("ops/tensor/softmax.cpp", "#include \"tally/ops/kernels/softmax.h\"\n") == 0);
    CHECK(count("autograd/tape.cpp", "#include \"tally/core/parallel_backend.h\"\n") == 1);
    CHECK(count("tests/core/parallel_test.cpp", "#include \"tally/core/parallel_backend.h\"\n") == 0);
    CHECK(count("core/parallel_std.cpp", "#include \"tally/core/parallel_backend.h\"\n") == 0);
  }
  SECTION("third-party headers") {
    CHECK(count("core/blas.cpp", "#include <cblas.h>\n") == 0);
    CHECK(count("core/blas.h", "#include <cblas.h>\n") == 1);
    CHECK(count("ops/tensor/matmul.cpp", "#include <cblas.h>\n") == 1);
    CHECK(count("autograd/tape.cpp", "#include <oneapi/tbb/parallel_for.h>\n") == 1);
    CHECK(count("recsys/config.cpp", "#include <nlohmann/json.hpp>\n") == 1);
    CHECK(count("recsys/reader.cpp", "#include <zlib.h>\n") == 1);
    CHECK(count("ops/tensor/softmax.cpp", "#include <hwy/highway.h>\n") == 1);
    CHECK(count("ops/kernels/softmax.cpp", "#include <hwy/highway.h>\n") == 0);
    CHECK(count("core/tensor.h", "#include <hwy/highway.h>\n") == 1);
    CHECK(count("core/exponential-inl.h", "#include <hwy/highway.h>\n") == 0);
    CHECK(count("ops/kernels/simd_math-inl.h", "#include \"tally/core/exponential-inl.h\"\n") == 0);
    CHECK(count("ops/tensor/softmax.cpp", "#include \"tally/core/exponential-inl.h\"\n") == 1);
    CHECK(count("nn/linear.cpp", "#include \"tally/core/exponential-inl.h\"\n") == 1);
    CHECK(count("recsys/config.cpp", "#include <CLI/CLI.hpp>\n") == 1);
    CHECK(count("tools/main.cpp", "#include <CLI/CLI.hpp>\n") == 0);
    CHECK(count("tools/main.cpp", "#include <nlohmann/json.hpp>\n") == 1);
    CHECK(count("nn/linear.h", "#include <fmt/core.h>\n") == 1);
    CHECK(count("nn/linear.cpp", "#include <fmt/core.h>\n") == 0);
    CHECK(count("core/tensor.cpp", "#include <boost/any.hpp>\n") == 1);
    CHECK(count("core/io.cpp", "#include <sys/stat.h>\n#include <vector>\n#include <unistd.h>\n") == 0);
  }
  SECTION("form") {
    CHECK(count("ops/tensor/matmul.cpp", "#include \"matmul.h\"\n") == 1);
    CHECK(count("ops/tensor/matmul.cpp", "#include <tally/ops/tensor/matmul.h>\n") == 1);
    CHECK(violations("core/tensor.h", "int x;\n").size() == 1);
    CHECK(violations("ops/kernels/a-inl.h", "#if defined(A) == defined(HWY_TARGET_TOGGLE)\n#endif\n").empty());
    CHECK(violations("ops/kernels/a-inl.h", "int x;\n").size() == 1);
    CHECK(violations("stray/file.cpp", "\n").size() == 1);
    std::string lines;
    for (int i = 0; i < 219; ++i) lines += '\n';
    CHECK(count("core/long.h", lines) == 0);
    CHECK(count("core/long.h", lines + '\n') == 1);
    for (int i = 0; i < 282; ++i) lines += '\n';
    CHECK(count("core/long.cpp", lines) == 1);
  }
}

TEST_CASE("the checker of rooms finds planted cycles of sub-rooms", "[layers]") {
  const auto includes = [](const std::string& header) { return "#include \"tally/" + header + "\"\n"; };
  std::map<std::string, std::string> tree{
      {"recsys/run/train_run.cpp", includes("recsys/report/report.h") + includes("core/tensor.h")},
      {"recsys/report/report.h", includes("recsys/record/run_record.h")},
      {"recsys/record/run_record.h", includes("recsys/data/split.h")},
      {"recsys/data/split.h", includes("recsys/ranker.h") + includes("recsys/data/filters.h")},
      {"ops/attention/softmax_attention.cpp", includes("ops/catalog.h") + includes("ops/kernels/softmax.h")}};
  CHECK(cycles(tree).empty());
  SECTION("of two") {
    tree["recsys/record/run_record.cpp"] = includes("recsys/report/report.h");
    REQUIRE(cycles(tree).size() == 1);
    CHECK_THAT(cycles(tree)[0],
               Catch::Contains("recsys/record/run_record.cpp includes tally/recsys/report/report.h") &&
                   Catch::Contains("recsys/report/report.h includes tally/recsys/record/run_record.h"));
  }
  SECTION("of four, through the room itself") {
    tree["recsys/ranker.h"] = includes("recsys/run/train_run.h");
    REQUIRE(cycles(tree).size() == 1);
    CHECK_THAT(cycles(tree)[0], Catch::Contains("recsys/ranker.h includes") && Catch::Contains("recsys/data/split.h"));
  }
  SECTION("upward within a room") {
    tree["ops/kernels/softmax.h"] = includes("ops/attention/softmax_attention.h");
    CHECK(cycles(tree).size() == 1);
    tree["ops/catalog.cpp"] = includes("ops/attention/softmax_attention.h");
    CHECK(cycles(tree).size() == 2);
  }
  SECTION("tests and examples have none") {
    tree["tests/a/x.cpp"] = includes("tests/b/y.h");
    tree["tests/b/y.h"] = includes("tests/a/x.h");
    CHECK(cycles(tree).empty());
  }
}

}  // namespace layers_test
