// A check that cannot fail is worthless: each one against an op that is broken in just that way.
#include "tally/ops/entry_checks.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/sample_coverage.h"

namespace entry_checks_test {

using namespace tally;
using namespace tally::ops;

namespace {

enum class Defect {
  none,
  wrong_gradient,
  imprecise_f32,
  leaks,
  unversioned,
  records_constants,
  gradient_for_constant,
  differs_without_tape,
  helped_by_others,
  cotangent_ignored,
  second_output_dropped,
  thread_count,
  ignores_strides,
  accepts_all,
  foreign_exception,
};

struct PairRule {
  static constexpr std::string_view name = "pair";
  Defect defect;
  Saved a, b;
  Tensor raw_b;  // what a careless op would keep
  void backward(BackwardContext& g) const {
    const bool both = g.has_cotangent(0);
    const Tensor first = g.cotangent(0), second = g.cotangent(1);
    const auto fill = [&](int i, auto&& element) {
      dispatch_floating(first.dtype(), name, [&]<class T>(T) {
        Tensor out(first.shape(), first.dtype());
        T* to = out.mutable_data<T>();
        for (std::int64_t j = 0; j < out.numel(); ++j) {
          const T from_sum = defect == Defect::cotangent_ignored ? T{1} : first.data<T>()[j];
          const T from_product =
              defect == Defect::second_output_dropped && i == 0 && both ? T{0} : second.data<T>()[j] * element(T{}, j);
          to[j] = from_sum + from_product;
          if (defect == Defect::wrong_gradient) to[j] *= T(1.0001);
          if (defect == Defect::helped_by_others && g.needs(0) && g.needs(1)) to[j] *= T(1.5);
        }
        g.give(i, out);
      });
    };
    const Tensor& other = defect == Defect::unversioned ? raw_b : b.get();
    if (g.needs(0)) fill(0, [&]<class T>(T, std::int64_t j) { return other.data<T>()[j]; });
    if (g.needs(1)) fill(1, [&]<class T>(T, std::int64_t j) { return a.get().data<T>()[j]; });
    if (g.needs(2) && defect == Defect::gradient_for_constant) g.give(2, Tensor::full(first.shape(), 1, first.dtype()));
  }
};

std::vector<Tensor>& hoard() {
  static std::vector<Tensor> tensors;
  return tensors;
}

/// (a + b + c, a b + c) elementwise, c constant.
std::vector<Var> pair(std::span<const Var> in, Defect defect) {
  if (in[0].shape() != in[1].shape() || in[0].shape() != in[2].shape()) {
    if (defect == Defect::foreign_exception) throw std::runtime_error("[pair] needs equal shapes");
    if (defect != Defect::accepts_all) fail<ShapeError>("pair", "needs equal shapes; got a ", in[0].shape());
  }
  const bool careless = defect == Defect::ignores_strides;
  const Tensor a = careless ? in[0].value() : in[0].value().contiguous();
  const Tensor b = in[1].value().contiguous(), c = in[2].value().contiguous();
  Tensor sum(a.shape(), a.dtype()), product(a.shape(), a.dtype());
  dispatch_floating(a.dtype(), "pair", [&]<class T>(T) {
    T *to_sum = sum.mutable_data<T>(), *to_product = product.mutable_data<T>();
    for (std::int64_t j = 0; j < std::min(a.numel(), b.numel()); ++j) {
      to_sum[j] = a.strided_data<T>()[j] + b.data<T>()[j] + c.data<T>()[j];
      to_product[j] = a.strided_data<T>()[j] * b.data<T>()[j] + c.data<T>()[j];
      if (defect == Defect::imprecise_f32 && sizeof(T) == 4) to_sum[j] += T(1e-4);
      if (defect == Defect::differs_without_tape && sizeof(T) == 4 && !recording(in[0], in[1])) to_sum[j] = 0;
      if (defect == Defect::thread_count) to_product[j] += static_cast<T>(num_threads());
    }
  });
  if (defect == Defect::leaks) hoard().push_back(sum.clone());
  PairRule rule{defect, Saved(a.contiguous()), Saved(b), b};
  std::vector<Tensor> outputs{sum, product};
  const std::vector<const Var*> inputs{&in[0], &in[1], &in[2]};
  return record(std::move(rule), std::span<const Var* const>(inputs), std::move(outputs),
                defect == Defect::records_constants);
}

OpEntry entry_with(Defect defect) {
  return {
      .name = "pair",
      .summary = "Sum and product.",
      .inputs = {{"a", "[M, N]"}, {"b", "[M, N]"}, {"c", "[M, N]", ops::InputKind::constant, false, "", "given"}},
      .outputs = {{"sum", "[M, N]"}, {"product", "[M, N]"}},
      .call = [defect](std::span<const Var> in, const OpOptions&) { return pair(in, defect); },
      .samples =
          [] {
            return std::vector<OpSample>{
                {"odd", {ops::sample_normal({3, 5}, 1), ops::sample_normal({3, 5}, 2), ops::sample_normal({3, 5}, 3)}}};
          },
      .errors =
          [] {
            return std::vector<ops::OpError>{
                {"shapes",
                 {ops::sample_normal({3}, 1), ops::sample_normal({2}, 2), ops::sample_normal({3}, 3)},
                 {},
                 "needs equal shapes"}};
          },
  };
}

Complaints check_everything(const OpEntry& entry) {
  Complaints all;
  const OpSample sample = entry.samples()[0];
  for (const SampleCheck& each : sample_checks()) {
    for (const std::string& complaint : each.check(entry, sample)) all.push_back(complaint);
  }
  for (const std::string& complaint : check_error(entry, entry.errors()[0])) all.push_back(complaint);
  for (const std::string& complaint : check_documentation(entry)) all.push_back(complaint);
  return all;
}

}  // namespace

TEST_CASE("a sound op draws no complaint", "[entry_checks]") {
  const OpEntry entry = entry_with(Defect::none);
  for (const std::string& complaint : check_everything(entry)) {
    INFO(complaint);
    CHECK(false);
  }
  CHECK(ops::check_entry(entry).verdict == ops::EntryVerdict::pass);
}

TEST_CASE("each check finds the defect it is there for", "[entry_checks]") {
  const auto found = [](Defect defect, auto check) {
    const OpEntry entry = entry_with(defect);
    return !check(entry, entry.samples()[0]).empty();
  };
  CHECK(found(Defect::imprecise_f32, check_f32));
  CHECK(found(Defect::leaks, check_leaks));
  CHECK(found(Defect::unversioned, check_versions));
  CHECK(found(Defect::records_constants, check_tracking));
  CHECK(found(Defect::gradient_for_constant, check_tracking));
  CHECK(found(Defect::differs_without_tape, check_tracking));
  CHECK(found(Defect::helped_by_others, check_tracking));
  CHECK(found(Defect::cotangent_ignored, check_cotangents));
  CHECK(found(Defect::second_output_dropped, check_cotangents));
  CHECK(found(Defect::thread_count, check_threads));
  CHECK(found(Defect::ignores_strides, check_views));
  CHECK_FALSE(check_error(entry_with(Defect::accepts_all), entry_with(Defect::none).errors()[0]).empty());
  CHECK_FALSE(check_error(entry_with(Defect::foreign_exception), entry_with(Defect::none).errors()[0]).empty());
  CHECK(ops::check_entry(entry_with(Defect::wrong_gradient)).verdict == ops::EntryVerdict::fail);
  hoard().clear();
}

TEST_CASE("references are compared closely", "[entry_checks]") {
  const Tensor one = Tensor::from<double>({1, 2}, {2});
  CHECK(compare_with_reference({one}, {one}).empty());
  CHECK_FALSE(compare_with_reference({one}, {}).empty());
  CHECK_FALSE(compare_with_reference({one}, {one.reshape({1, 2})}).empty());
  CHECK_FALSE(compare_with_reference({one}, {Tensor::from<double>({1, 2 + 1e-9}, {2})}).empty());
  const Tensor infinite = Tensor::from<double>({1, HUGE_VAL}, {2}), lost = Tensor::from<double>({1, std::nan("")}, {2});
  CHECK(compare_with_reference({infinite}, {infinite}).empty());
  CHECK(compare_with_reference({lost}, {lost}).empty());
  CHECK_FALSE(compare_with_reference({infinite}, {lost}).empty());
  CHECK_FALSE(compare_with_reference({one}, {infinite}).empty());
  CHECK_FALSE(compare_with_reference({Tensor::arange(2)}, {Tensor::from<std::int64_t>({0, 2}, {2})}).empty());
}

TEST_CASE("gaps in an entry's documentation are found", "[entry_checks]") {
  const auto complains = [](auto&& change) {
    OpEntry entry = entry_with(Defect::none);
    change(entry);
    return !check_documentation(entry).empty();
  };
  CHECK(complains([](OpEntry& e) { e.summary.clear(); }));
  CHECK(complains([](OpEntry& e) { e.inputs[0].shape.clear(); }));
  CHECK(complains([](OpEntry& e) { e.inputs[1].name = "a"; }));
  CHECK(complains([](OpEntry& e) { e.inputs[1].optional = true; }));
  CHECK(complains([](OpEntry& e) { e.options = {{"depth", std::int64_t{1}, "never set"}}; }));
  CHECK(complains([](OpEntry& e) { e.errors = nullptr; }));
  CHECK(complains([](OpEntry& e) {
    e.samples = [inner = e.samples] {
      auto samples = inner();
      samples[0].options.set("misspelt", true);
      return samples;
    };
  }));
  CHECK(complains([](OpEntry& e) {
    e.samples = [inner = e.samples] {
      auto samples = inner();
      samples[0].inputs[0] = samples[0].inputs[0].to(DType::f32);
      return samples;
    };
  }));
}

TEST_CASE("an entry whose gradient cannot be compared does not pass", "[entry_checks]") {
  OpEntry entry = entry_with(Defect::none);
  entry.samples = [] {
    return std::vector<OpSample>{
        {"empty", {Tensor::zeros({0}, DType::f64), Tensor::zeros({0}, DType::f64), Tensor::zeros({0}, DType::f64)}}};
  };
  CHECK(ops::check_entry(entry).verdict == ops::EntryVerdict::fail);
  for (ops::OpInput& input : entry.inputs) input.kind = ops::InputKind::constant;
  CHECK(ops::check_entry(entry).verdict == ops::EntryVerdict::skip);
}

namespace {

// What an author gets wrong about the contract, in an op y = a b of one multiplication.
enum class Mistake {
  none,
  declared_constant,
  not_recorded,
  saved_with_the_other,
  cotangent_ignored,
  input_overwritten,
  input_overwritten_backward,
  cotangent_overwritten,
  gradient_for_leaves_only,
  cotangent_taken_while_read,
  buffer_borrowed,
  offsets_unsaved,
  wrong_in_f32_only,
  small_and_wrong_in_f32,
  wrong_from_column_64,
  small_element_wrong,
};

struct ProductRule {
  static constexpr std::string_view name = "product";
  Mistake mistake;
  Saved a, b;
  const void* borrowed;
  Tensor unsaved;

  void backward(BackwardContext& g) const {
    Tensor gy = g.cotangent();
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      const T* from = gy.data<T>();
      if (mistake == Mistake::cotangent_taken_while_read) {
        gy = Tensor();
        gy = g.take_cotangent();
      }
      const auto give = [&](int i, const T* other) {
        Tensor out = mistake == Mistake::cotangent_taken_while_read && i == 0 ? gy : Tensor(gy.shape(), gy.dtype());
        T* to = out.mutable_data<T>();
        for (std::int64_t j = 0; j < out.numel(); ++j) {
          to[j] = (mistake == Mistake::cotangent_ignored ? T{1} : from[j]) * other[j];
          if (mistake == Mistake::wrong_in_f32_only && sizeof(T) == 4 && j == 1) to[j] *= T(1.0001);
          if (mistake == Mistake::small_and_wrong_in_f32 && sizeof(T) == 4) to[j] *= T(1.01);
          if (mistake == Mistake::wrong_from_column_64 && j == 1777) to[j] *= T(1.5);
          if (mistake == Mistake::small_element_wrong && j == 1234) to[j] = 0;
        }
        g.give(i, out);
      };
      if (mistake == Mistake::cotangent_overwritten) const_cast<T*>(gy.data<T>())[0] = 7;
      if (mistake == Mistake::input_overwritten_backward && g.needs(0)) const_cast<T*>(b.get().data<T>())[0] = 7;
      const T* other = mistake == Mistake::buffer_borrowed   ? static_cast<const T*>(borrowed)
                       : mistake == Mistake::offsets_unsaved ? unsaved.data<T>()
                       : g.needs(0)                          ? b.get().data<T>()
                                                             : nullptr;
      if (g.needs(0)) give(0, other);
      if (g.needs(1)) give(1, a.get().data<T>());
    });
  }
};

Var product(const Var& a, const Var& b, Mistake mistake) {
  check<ShapeError>(a.shape() == b.shape(), "product", "needs equal shapes; got ", a.shape());
  const Tensor left = a.value().contiguous(), right = b.value().contiguous();
  Tensor y(a.shape(), a.dtype());
  dispatch_floating(a.dtype(), "product", [&]<class T>(T) {
    T* to = y.mutable_data<T>();
    for (std::int64_t j = 0; j < y.numel(); ++j) to[j] = left.data<T>()[j] * right.data<T>()[j];
    if (mistake == Mistake::input_overwritten && y.numel() > 0) const_cast<T*>(left.data<T>())[0] = 3;
  });
  ProductRule rule{mistake,
                   Saved(left, b.tracked()),
                   Saved(right, mistake == Mistake::saved_with_the_other ? b.tracked() : a.tracked()),
                   nullptr,
                   {}};
  if (mistake == Mistake::buffer_borrowed) rule = {mistake, Saved(left, b.tracked()), {}, right.raw_data(), {}};
  if (mistake == Mistake::offsets_unsaved) rule = {mistake, Saved(left, b.tracked()), {}, nullptr, right};
  const Var constant(b.value());
  const bool forgotten =
      mistake == Mistake::not_recorded || (mistake == Mistake::gradient_for_leaves_only && !b.is_leaf());
  return record(std::move(rule), {&a, forgotten ? &constant : &b}, std::move(y));
}

OpEntry product_entry(Mistake mistake) {
  const bool large = mistake == Mistake::wrong_from_column_64 || mistake == Mistake::small_element_wrong;
  const double size = mistake == Mistake::small_and_wrong_in_f32 ? 1e-6 : 1;
  OpEntry entry;
  entry.name = "product";
  entry.summary = "a b.";
  entry.inputs = {{"a", "[N]"}, {"b", "[N]"}};
  if (mistake == Mistake::declared_constant) entry.inputs[1].kind = InputKind::constant;
  entry.outputs = {{"y", "[N]"}};
  entry.call = [mistake](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
    return {product(in[0], in[1], mistake)};
  };
  entry.samples = [large, size, mistake] {
    const Shape shape{large ? 2000 : 1024};
    std::vector<Tensor> inputs{sample_normal(shape, 1, size), sample_normal(shape, 2, size)};
    if (mistake == Mistake::small_element_wrong) {
      inputs[0].mutable_data<double>()[1234] = inputs[1].mutable_data<double>()[1234] = 1e-6;
    }
    return std::vector<OpSample>{{"odd", inputs}};
  };
  entry.errors = [] {
    return std::vector<OpError>{{"shapes", {sample_normal({3}, 1), sample_normal({2}, 2)}, {}, "needs equal shapes"}};
  };
  return entry;
}

/// Everything that the checks say, a line each.
std::string told(const EntryFindings& found) {
  std::string text;
  for (const Finding& each : found.findings) text += each.check + ": " + each.complaint + "\n";
  for (const SampleReport& sample : found.gradients.samples) {
    for (const std::string& complaint : sample.complaints) text += "gradcheck: " + complaint + "\n";
    for (const LeafReport& leaf : sample.gradients.leaves) text += "gradcheck: " + leaf.name + ": " + leaf.hint + "\n";
    text += sample.error;
  }
  return text;
}

}  // namespace

TEST_CASE("each mistake about the contract is found, with a message that leads there", "[entry_checks]") {
  using Catch::Matchers::Contains;
  const EntryFindings sound = check_all(product_entry(Mistake::none));
  INFO(told(sound));
  CHECK_FALSE(sound.failed());
  CHECK(sound.gaps.empty());
  CHECK(sound.samples == 1);
  CHECK(sound.checks > 10);

  struct Case {
    Mistake mistake;
    std::vector<const char*> message;
    bool by_gradcheck;
  };
  const Case cases[] = {
    {Mistake::declared_constant, {"moves with 'b', which is declared constant", "no_gradient"}, true},
    {Mistake::not_recorded, {"no gradient reaches it"}, true},
    {Mistake::saved_with_the_other, {"when only 'a' is tracked backward fails", "whenever that gradient"}, false},
    {Mistake::cotangent_ignored, {"backward ignores a cotangent"}, true},
    {Mistake::input_overwritten, {"forward overwrites its input 'a'"}, false},
    {Mistake::input_overwritten_backward, {"backward overwrites its input 'b'"}, false},
    {Mistake::cotangent_overwritten, {"backward overwrites the cotangent of output 0", "take_cotangent()"}, false},
    {Mistake::gradient_for_leaves_only,
     {"between other recorded ops: the gradient of 'b'", "need not be leaves"},
     false},
    {Mistake::cotangent_taken_while_read, {"between other recorded ops: the gradient of 'b'"}, false},
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which stop at the mistake themselves
    {Mistake::buffer_borrowed, {"let go of the inputs and reused their memory", "does not hold"}, false},
#endif
    {Mistake::offsets_unsaved, {"after input 'b' was overwritten between", "keep it as Saved"}, false},
    {Mistake::wrong_in_f32_only, {"in f32 the gradient of 'a' differs"}, true},
    {Mistake::small_and_wrong_in_f32, {"in f32 the gradient of 'a' differs"}, true},
    {Mistake::wrong_from_column_64, {"only 1 of"}, true},
    {Mistake::small_element_wrong, {"only 1 of"}, true},
  };
  for (const Case& each : cases) {
    const EntryFindings found = check_all(product_entry(each.mistake));
    INFO(told(found));
    CHECK(found.failed());
    for (const char* part : each.message) CHECK_THAT(told(found), Contains(part));
    CHECK(found.gradients_failed() >= each.by_gradcheck);
  }
}

TEST_CASE("an op whose only inputs are declared constant is not waved through", "[entry_checks]") {
  OpEntry entry = product_entry(Mistake::none);
  for (OpInput& input : entry.inputs) input.kind = InputKind::constant;
  CHECK(check_entry(entry).verdict == EntryVerdict::fail);
  for (OpInput& input : entry.inputs) input.no_gradient = "given";
  CHECK(check_entry(entry).verdict == EntryVerdict::skip);
}

TEST_CASE("a reference is compared where an entry has one", "[entry_checks]") {
  OpEntry entry = product_entry(Mistake::none);
  const auto reference = [](double factor) {
    return [factor](std::span<const Tensor> in, const OpOptions&) -> std::vector<Tensor> {
      const std::vector<double> a = in[0].to_doubles(), b = in[1].to_doubles();
      std::vector<double> y;
      for (std::size_t i = 0; i < a.size(); ++i) y.push_back(factor * a[i] * b[i]);
      return {Tensor::from(y, in[0].shape())};
    };
  };
  entry.reference = reference(1);
  CHECK(check_reference(entry, entry.samples()[0]).empty());
  entry.reference = reference(1 + 1e-9);
  CHECK_FALSE(check_reference(entry, entry.samples()[0]).empty());
  CHECK(check_all(entry).failed());
}

TEST_CASE("a pair of options that no sample has is told", "[entry_checks]") {
  OpEntry entry = entry_with(Defect::none);
  entry.inputs[2].optional = true;
  entry.options = {{"mask", std::string("causal"), ""}, {"scale", 0.0, ""}, {"exact", false, ""}};
  const OpSample base = entry.samples()[0];
  const OpVariations variations{base, {{"mask", {std::string("both")}}, {"scale", {0.5, 2.0}}, {"exact", {true}}}};
  const std::vector<OpSample> all = paired_samples(entry, variations);
  CHECK(all.size() >= 6);
  CHECK(all.size() <= 10);
  const auto with = [&](std::vector<OpSample> samples) {
    OpEntry copy = entry;
    copy.samples = [samples] { return samples; };
    return copy;
  };
  const PairCoverage full = pair_coverage(with(all));
  CHECK(full.total == 24);  // six pairs of factors with two levels each
  CHECK(full.covered == full.total);
  CHECK(check_coverage(with(all)).empty());

  // One sample after the other is removed: some pair is missing long before the last.
  std::vector<OpSample> fewer = all;
  std::size_t kept = all.size();
  while (kept > 0 && check_coverage(with({all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept)})).empty())
    --kept;
  CHECK(kept >= 3);
  fewer.assign(1, all[0]);
  const PairCoverage little = pair_coverage(with(fewer));
  CHECK(little.covered == 6);
  CHECK(std::find(little.missing.begin(), little.missing.end(), "mask=causal with exact=true") != little.missing.end());

  // A sample whose gradient is not checked, or that has no elements, covers nothing.
  for (OpSample& sample : fewer) sample.gradient = false;
  CHECK(pair_coverage(with(fewer)).covered == 0);

  // Pairs declared apart do not count, need a refusal, and are not made.
  OpEntry apart = entry;
  apart.apart = {{"mask=both", "scale set"}};
  const std::vector<OpSample> others = paired_samples(apart, variations);
  for (const OpSample& sample : others) {
    CHECK_FALSE((sample.options.text("mask", "") == "both" && sample.options.number("scale", 0) != 0));
  }
  apart.samples = [others] { return others; };
  CHECK(pair_coverage(apart).covered == 23);
  CHECK(pair_coverage(apart).total == 23);
  CHECK_FALSE(check_coverage(apart).empty());
  apart.errors = [base] {
    return std::vector<OpError>{{"both", base.inputs, {{"mask", std::string("both")}, {"scale", 1.0}}, "refused"}};
  };
  CHECK(check_coverage(apart).empty());
}

TEST_CASE("an entry that is copied and added again has its samples once", "[entry_checks]") {
  const OpEntry& norm = standard_catalog().find("layer_norm");
  Catalog catalog;
  catalog.add(norm);
  CHECK(catalog.find("layer_norm").samples().size() == norm.samples().size());
}

TEST_CASE("the catalog's own coverage fails when a sample is taken away", "[entry_checks]") {
  const OpEntry& attention = standard_catalog().find("softmax_attention");
  CHECK(check_coverage(attention).empty());
  OpEntry without = attention;
  without.samples = [&] {
    std::vector<OpSample> samples = attention.samples();
    std::erase_if(samples,
                  [](const OpSample& s) { return s.options.contains("scale") && s.options.contains("window"); });
    return samples;
  };
  CHECK_FALSE(check_coverage(without).empty());
  without.samples = [&] {
    std::vector<OpSample> samples = attention.samples();
    std::erase_if(samples, [](const OpSample& s) { return s.name.find("pairs") != std::string::npos; });
    return samples;
  };
  CHECK_FALSE(check_coverage(without).empty());
}

}  // namespace entry_checks_test
