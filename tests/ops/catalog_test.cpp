// Every entry of the standard catalog against every check.
#include "tally/ops/catalog.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/core/simd.h"
#include "tally/ops/entry_checks.h"
#include "tally/ops/sample_coverage.h"
#include "tests/ops/references.h"

namespace catalog_test {

using namespace tally;
using namespace tally::testing;
using ops::Complaints;
using ops::OpEntry;
using ops::OpSample;
using ops::standard_catalog;

namespace {

/// Runs `body(entry, sample)` in a section of its own for each sample of each op.
template <class Body>
void for_each_sample(Body&& body) {
  for (const OpEntry& entry : standard_catalog().entries()) {
    DYNAMIC_SECTION(entry.name) {
      for (const OpSample& sample : entry.samples()) {
        INFO(entry.name << ": " << ops::describe(sample));
        body(entry, sample);
      }
    }
  }
}

void expect_none(const Complaints& complaints) {
  CHECK(complaints.empty());
  for (const std::string& complaint : complaints) {
    INFO(complaint);
    CHECK(false);
  }
}

std::string explain(const ops::EntryReport& report) {
  std::string text = report.complaint;
  for (const ops::SampleReport& sample : report.samples) {
    if (!sample.error.empty()) text += "\n  " + sample.sample + ": " + sample.error;
    for (const LeafReport& leaf : sample.gradients.leaves) {
      if (leaf.verdict == GradientVerdict::ok) continue;
      text += "\n  " + sample.sample + ": " + leaf.name + " " + name_of(leaf.verdict) + " " + leaf.hint;
      for (const ElementError& element : leaf.worst) {
        text += detail::join("\n    at ", element.index, " analytic ", element.analytic, " numeric ", element.numeric);
      }
    }
  }
  return text;
}

}  // namespace

TEST_CASE("every op agrees with its naive reference", "[catalog]") {
  for (const auto& [name, reference] : all_references()) {
    INFO("reference '" << name << "'");
    CHECK(standard_catalog().contains(name));
  }
  for (const OpEntry& entry : standard_catalog().entries()) {
    DYNAMIC_SECTION(entry.name) {
      const auto reference = all_references().find(entry.name);
      REQUIRE(reference != all_references().end());
      for (const OpSample& sample : entry.samples()) {
        INFO(entry.name << ": " << ops::describe(sample));
        const std::vector<Tensor> outputs = ops::evaluate(entry, sample.inputs, sample.options);
        CHECK(outputs.size() == entry.outputs.size());
        expect_none(ops::compare_with_reference(outputs, reference->second(sample.inputs, sample.options)));
      }
    }
  }
}

TEST_CASE("every op passes the gradient check", "[catalog]") {
  for (const OpEntry& entry : standard_catalog().entries()) {
    DYNAMIC_SECTION(entry.name) {
      const ops::EntryReport report = ops::check_entry(entry);
      INFO(explain(report));
      const bool fine = report.verdict == ops::EntryVerdict::pass || report.verdict == ops::EntryVerdict::skip;
      CHECK(fine);
    }
  }
}

TEST_CASE("an injected bug fails the gradient check of every input of every op", "[catalog]") {
  for (const OpEntry& entry : standard_catalog().entries()) {
    DYNAMIC_SECTION(entry.name) { expect_none(ops::check_injected_bug(entry)); }
  }
}

TEST_CASE("every two options, and every absence of an input, meet in a sample with a gradient", "[catalog]") {
  std::int64_t covered = 0, total = 0;
  for (const OpEntry& entry : standard_catalog().entries()) {
    DYNAMIC_SECTION(entry.name) { expect_none(ops::check_coverage(entry)); }
    const ops::PairCoverage pairs = ops::pair_coverage(entry);
    covered += pairs.covered;
    total += pairs.total;
  }
  CHECK(covered == total);
  CHECK(total > 800);
}

TEST_CASE("f32 agrees with f64 on every SIMD target", "[catalog]") {
  struct Restore {
    ~Restore() { set_simd_target(""); }
  } restore;
  for (const std::string& target : simd_targets()) {
    set_simd_target(target);
    DYNAMIC_SECTION(target) {
      for_each_sample(
          [&](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_f32(entry, sample)); });
    }
  }
}

TEST_CASE("ops give back all memory", "[catalog]") {
  for_each_sample([](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_leaks(entry, sample)); });
}

TEST_CASE("ops notice that a saved tensor was overwritten", "[catalog]") {
  for_each_sample(
      [](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_versions(entry, sample)); });
}

TEST_CASE("ops leave inputs and cotangents alone, and read only memory that they hold", "[catalog]") {
  for_each_sample([](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_buffers(entry, sample)); });
}

TEST_CASE("inputs declared constant are still, or say why they have no gradient", "[catalog]") {
  for_each_sample(
      [](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_constants(entry, sample)); });
}

TEST_CASE("ops record only what is tracked", "[catalog]") {
  for_each_sample(
      [](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_tracking(entry, sample)); });
}

TEST_CASE("ops give the same gradients between other recorded ops", "[catalog]") {
  for_each_sample(
      [](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_between_ops(entry, sample)); });
}

TEST_CASE("backward is linear in the cotangents", "[catalog]") {
  for_each_sample([](const OpEntry& entry, const OpSample& sample) {
    if (sample.gradient) expect_none(ops::check_cotangents(entry, sample));
  });
}

TEST_CASE("ops give the same bits on 1, 2 and 8 threads", "[catalog]") {
  for_each_sample([](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_threads(entry, sample)); });
}

TEST_CASE("large calls give the same bits on 1, 2 and 8 threads", "[catalog][slow]") {
  for (const OpEntry& entry : standard_catalog().entries()) {
    if (!entry.large) continue;
    DYNAMIC_SECTION(entry.name) { expect_none(ops::check_threads(entry, entry.large())); }
  }
}

TEST_CASE("views give the same bits as contiguous inputs", "[catalog]") {
  for_each_sample([](const OpEntry& entry, const OpSample& sample) { expect_none(ops::check_views(entry, sample)); });
}

TEST_CASE("wrong calls are refused with the promised message", "[catalog]") {
  for (const OpEntry& entry : standard_catalog().entries()) {
    if (!entry.errors) continue;
    DYNAMIC_SECTION(entry.name) {
      for (const ops::OpError& error : entry.errors()) {
        INFO(entry.name << ": " << error.name);
        expect_none(ops::check_error(entry, error));
      }
    }
  }
}

TEST_CASE("every op is documented, and its samples use every option", "[catalog]") {
  for (const OpEntry& entry : standard_catalog().entries()) {
    DYNAMIC_SECTION(entry.name) { expect_none(ops::check_documentation(entry)); }
  }
}

TEST_CASE("an option that says how far may be larger than any sequence", "[catalog]") {
  // Blocks, chunks and windows beyond all rows are as good as ones of all rows: in bits, and in memory.
  for (const OpEntry& entry : standard_catalog().entries()) {
    for (const std::string name : {"block", "chunk", "window"}) {
      const auto option = std::find_if(entry.options.begin(), entry.options.end(),
                                       [&](const ops::OpOption& each) { return each.name == name; });
      // What pointwise attention divides by is no distance.
      if (option == entry.options.end() || entry.name == "pointwise_attention") continue;
      int compared = 0;
      for (const OpSample& sample : entry.samples()) {
        const std::int64_t rows = std::max(sample.inputs[0].dim(0), std::int64_t{1});
        const auto at = [&](std::int64_t value, std::int64_t& peak) {
          ops::OpOptions options = sample.options;
          options.set(name, value);
          std::vector<Var> leaves;
          for (const Tensor& input : sample.inputs) {
            leaves.push_back(input.defined() && is_floating(input.dtype()) ? Var::leaf(input) : Var(input));
          }
          const SerialScope serial;  // threads that work side by side hold buffers at once, or not
          const MemoryScope scope;
          Tape tape;
          std::vector<Var> outputs;
          {
            const Recording on(tape);
            outputs = entry.call(leaves, options);
          }
          std::vector<Tensor> cotangents, results;
          for (const Var& output : outputs) cotangents.push_back(Tensor::full(output.shape(), 1, output.dtype()));
          const Gradients gradients = tape.backward(outputs, cotangents);
          for (const Var& output : outputs) results.push_back(output.value());
          for (const Var& leaf : leaves) {
            if (leaf.is_leaf() && gradients.contains(leaf)) results.push_back(gradients[leaf]);
          }
          peak = scope.peak();
          return results;
        };
        INFO(entry.name << ' ' << name << ": " << ops::describe(sample));
        std::int64_t expected_peak = 0, peak = 0;
        std::vector<Tensor> expected;
        try {
          expected = at(rows, expected_peak);
        } catch (const ShapeError&) {
          continue;  // other inputs go with the sample's own value
        }
        for (const std::int64_t far : {std::int64_t{1} << 24, std::numeric_limits<std::int64_t>::max()}) {
          const std::vector<Tensor> got = at(far, peak);
          REQUIRE(got.size() == expected.size());
          for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i].to_doubles() == expected[i].to_doubles());
          CHECK(peak <= expected_peak);
          ++compared;
        }
      }
      CHECK(compared > 0);
    }
  }
}

TEST_CASE("every public function of ops that returns a Var has an entry", "[catalog]") {
  // Declarations at the beginning of a line that take a Var, outside of namespace detail.
  const std::regex declaration(R"(^[\w:<>, ]+ (\w+)\((?:.*\W)?Var\W)");
  std::set<std::string> missing;
  int found = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator(TALLY_SOURCE_DIR "/ops")) {
    if (file.path().extension() != ".h" || file.path().filename() == "check.h") continue;
    std::ifstream in(file.path());
    bool internal = false;
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("namespace")) internal = line.find("detail") != std::string::npos;
      std::smatch match;
      if (line.starts_with("inline Var ")) continue;  // composed of other ops in its header, with a test of its own
      if (internal || !std::regex_search(line, match, declaration)) continue;
      ++found;
      if (!standard_catalog().contains(match[1].str())) missing.insert(match[1].str());
    }
  }
  CHECK(found > 0);
  for (const std::string& name : missing) {
    INFO("ops::" << name << " has no catalog entry");
    CHECK(false);
  }
}

TEST_CASE("an unknown op is refused with the nearest name", "[catalog]") {
  using Catch::Matchers::Contains;
  CHECK_THROWS_AS(standard_catalog().find("matmull"), ConfigError);
  CHECK_THROWS_WITH(standard_catalog().find("matmull"), Contains("matmull") && Contains("did you mean 'matmul'"));
}

}  // namespace catalog_test
