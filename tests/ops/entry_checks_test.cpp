// A check that cannot fail is worthless: each one against an op that is broken in just that way.
#include "tests/support/entry_checks.h"

#include <catch2/catch.hpp>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/check.h"

using namespace tally;
using namespace tally::testing;
using ops::OpEntry;
using ops::OpOptions;
using ops::OpSample;

namespace {

enum class Defect {
  none,
  wrong_gradient,
  imprecise_f32,
  leaks,
  unversioned,
  records_constants,
  gradient_for_constant,
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
      .inputs = {{"a", "[M, N]"}, {"b", "[M, N]"}, {"c", "[M, N]", ops::InputKind::constant}},
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
  for (const auto check :
       {check_f32, check_leaks, check_versions, check_tracking, check_cotangents, check_threads, check_views}) {
    for (const std::string& complaint : check(entry, sample)) all.push_back(complaint);
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
