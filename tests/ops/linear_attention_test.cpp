#include "tally/ops/attention/linear_attention.h"

#include <catch2/catch.hpp>
#include <limits>

#include "tally/core/parallel.h"
#include "tally/ops/attention/linear_attention_memory.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/shape.h"
#include "tests/ops/attention_cases.h"

namespace linear_attention_test {

using namespace tally;
using namespace tally::testing;
using Catch::Matchers::Contains;
using ops::AttentionMask;
using ops::LinearAttentionInputs;
using ops::LinearAttentionMemory;
using ops::LinearAttentionOptions;
using ops::LinearExecution;
using ops::UpdateRule;

namespace {

/// What gates are given for.
enum class Gates { none, constant, shared, memory, channel, value_channel };

struct Case {
  UpdateRule rule = UpdateRule::linear;
  Gates gates = Gates::none;
};
const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> made;
    for (const auto& [word, rule] : ops::words(UpdateRule())) {
      if (!ops::decays(rule)) {
        made.push_back({rule, Gates::none});
        continue;
      }
      for (const Gates gates : {Gates::constant, Gates::shared, Gates::memory, Gates::channel})
        made.push_back({rule, gates});
      if (rule == UpdateRule::gated) made.push_back({rule, Gates::value_channel});
    }
    return made;
  }();
  return all;
}
std::string describe(const Case& each) {
  return std::string(word_of(each.rule)) + ", gates " + std::to_string(static_cast<int>(each.gates));
}

/// Tensors of a call: q, k of length 1, v, log_decay, gain, initial_state, and cotangents of both outputs.
struct Call {
  std::vector<Tensor> inputs;
  Tensor of_output, of_state;
  Offsets offsets;
  LinearAttentionOptions options;
};

constexpr std::int64_t kHeads = 4, kMemories = 2, kWidth = 6, kValueWidth = 5;

Call call_of(const std::vector<std::int64_t>& lengths, const Case& each, DType dtype = DType::f32,
             double strength = 0.1) {
  const Offsets offsets = Offsets::from_lengths(lengths);
  const std::int64_t rows = offsets.total();
  const auto normal = [&](const Shape& shape, std::uint64_t stream) { return ops::sample_normal(shape, stream); };
  Tensor k = normal({rows * kMemories, kWidth}, 2);
  for (std::int64_t i = 0; i < rows * kMemories; ++i) {
    double* key = k.mutable_data<double>() + i * kWidth;
    const double length = std::sqrt(std::inner_product(key, key + kWidth, key, 0.0));
    for (std::int64_t c = 0; c < kWidth; ++c) key[c] /= length;
  }
  Tensor decay;
  const bool along_values = each.gates == Gates::value_channel;
  if (each.gates != Gates::none) {
    decay = normal(each.gates == Gates::constant ? Shape{kMemories}
                   : each.gates == Gates::shared ? Shape{rows, 1}
                   : each.gates == Gates::memory ? Shape{rows, kMemories}
                                                 : Shape{rows, kMemories * (along_values ? kValueWidth : kWidth)},
                   4);
    for (double& x : decay.mutable_span<double>()) x = -strength * std::abs(x);
  }
  Tensor gain = normal({rows, kMemories}, 5);
  for (double& x : gain.mutable_span<double>()) x = 1 + std::tanh(x);
  Call call{{normal({rows, kHeads * kWidth}, 1), k.reshape({rows, kMemories * kWidth}),
             normal({rows, kMemories * kValueWidth}, 3), decay, gain,
             normal({offsets.count(), kMemories, kWidth, kValueWidth}, 6)},
            normal({rows, kHeads * kValueWidth}, 7).to(dtype),
            normal({offsets.count(), kMemories, kWidth, kValueWidth}, 8).to(dtype),
            offsets,
            {.heads = kHeads,
             .rule = each.rule,
             .decay_along = along_values ? ops::DecayAlong::values : ops::DecayAlong::keys}};
  for (Tensor& x : call.inputs) {
    if (x.defined()) x = x.to(dtype);
  }
  return call;
}

struct Results {
  Tensor output, state;
  std::vector<Tensor> gradients;  ///< of each input; undefined where there is none
};

LinearAttentionInputs as_inputs(const std::vector<Var>& in) { return {in[0], in[1], in[2], in[3], in[4], in[5]}; }

Results run(const Call& call) {
  Tape tape;
  std::vector<Var> in;
  for (const Tensor& x : call.inputs) in.push_back(x.defined() ? tape.input(x) : Var());
  ops::LinearAttentionResult result;
  {
    const Recording on(tape);
    result = ops::linear_attention(as_inputs(in), call.offsets, call.options);
  }
  std::vector<Var> outputs{result.output};
  std::vector<Tensor> cotangents{call.of_output};
  if (call.options.final_state) {
    outputs.push_back(result.final_state);
    cotangents.push_back(call.of_state);
  }
  const Gradients gradients = tape.backward(outputs, cotangents);
  Results all{result.output.value(), call.options.final_state ? result.final_state.value() : Tensor(), {}};
  for (const Var& each : in) all.gradients.push_back(each.defined() ? gradients[each] : Tensor());
  return all;
}

void check_equal(const Results& a, const Results& b, double tolerance) {
  CHECK(largest_difference(a.output, b.output) < tolerance);
  if (a.state.defined()) CHECK(largest_difference(a.state, b.state) < tolerance);
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    INFO("gradient of input " << i);
    REQUIRE(a.gradients[i].defined() == b.gradients[i].defined());
    if (a.gradients[i].defined()) CHECK(largest_difference(a.gradients[i], b.gradients[i]) < tolerance);
  }
}

Tensor rows_between(const Tensor& x, std::int64_t begin, std::int64_t end) {
  return x.slice(0, begin, end).contiguous();
}

}  // namespace

TEST_CASE("linear attention in chunks and row by row is that of the definition", "[linear_attention]") {
  for (const Case& each : cases()) {
    for (const std::int64_t length : {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 130}) {
      INFO(describe(each) << ", " << length << " rows");
      Call call = call_of({length, 0, 3}, each, DType::f64);
      call.options.execution = LinearExecution::naive;
      const Results definition = run(call);
      for (const LinearExecution execution : {LinearExecution::chunked, LinearExecution::recurrent}) {
        call.options.execution = execution;
        check_equal(definition, run(call), 1e-11);
      }
    }
  }
}

TEST_CASE("linear attention keeps states of long sequences in parts", "[linear_attention]") {
  // Beyond 128 chunks backward computes the states of earlier ones again.
  for (const Case& each : {Case{UpdateRule::gated_delta, Gates::channel}, Case{UpdateRule::gated, Gates::shared},
                           Case{UpdateRule::gated, Gates::value_channel}}) {
    Call call = call_of({400}, each, DType::f64);
    call.options.execution = LinearExecution::naive;
    const Results definition = run(call);
    call.options.execution = LinearExecution::recurrent;
    check_equal(definition, run(call), 1e-11);
  }
  Call call = call_of({64 * 128 * 2 + 70}, {UpdateRule::gated_delta, Gates::memory}, DType::f64);
  const Results chunked = run(call);
  call.options.execution = LinearExecution::recurrent;
  check_equal(chunked, run(call), 1e-10);
}

TEST_CASE("linear attention without a final state has the gradients of its output alone", "[linear_attention]") {
  for (const Case& each : cases()) {
    INFO(describe(each));
    Call call = call_of({70, 3}, each, DType::f64);
    call.of_state.fill(0);
    const Results with = run(call);
    call.options.final_state = false;
    const Results without = run(call);
    CHECK_FALSE(without.state.defined());
    CHECK(identical(with.output, without.output));
    for (std::size_t i = 0; i < with.gradients.size(); ++i) {
      if (with.gradients[i].defined()) CHECK(largest_difference(with.gradients[i], without.gradients[i]) < 1e-14);
    }
  }
}

TEST_CASE("a sequence of linear attention cut in two is the whole one, with its gradients", "[linear_attention]") {
  for (const Case& each : cases()) {
    for (const std::int64_t cut : {1, 50, 64, 99}) {
      INFO(describe(each) << ", cut at " << cut);
      const Call call = call_of({100}, each, DType::f64);
      const Results whole = run(call);
      Tape tape;
      std::vector<Var> in, outputs;
      for (const Tensor& x : call.inputs) in.push_back(x.defined() ? tape.input(x) : Var());
      {
        const Recording on(tape);
        Var state = in[5];
        std::int64_t begin = 0;
        for (const std::int64_t end : {cut, std::int64_t{100}}) {
          const auto part = [&](const Var& x) {
            return x.defined() && x.rank() == 2 ? ops::slice(x, 0, begin, end) : x;
          };
          const ops::LinearAttentionResult result =
              ops::linear_attention({part(in[0]), part(in[1]), part(in[2]), part(in[3]), part(in[4]), state},
                                    Offsets::single(end - begin), call.options);
          outputs.push_back(result.output);
          state = result.final_state;
          begin = end;
        }
        outputs.push_back(state);
      }
      CHECK(largest_difference(outputs[0].value(), rows_between(whole.output, 0, cut)) < 1e-12);
      CHECK(largest_difference(outputs[1].value(), rows_between(whole.output, cut, 100)) < 1e-12);
      CHECK(largest_difference(outputs[2].value(), whole.state) < 1e-12);
      const std::vector<Tensor> cotangents{rows_between(call.of_output, 0, cut), rows_between(call.of_output, cut, 100),
                                           call.of_state};
      const Gradients gradients = tape.backward(outputs, cotangents);
      for (std::size_t i = 0; i < in.size(); ++i) {
        INFO("gradient of input " << i);
        if (in[i].defined()) CHECK(largest_difference(gradients[in[i]], whole.gradients[i]) < 1e-11);
      }
    }
  }
}

TEST_CASE("what comes later does not change causal linear attention by a bit", "[linear_attention]") {
  for (const UpdateRule rule : {UpdateRule::linear, UpdateRule::delta}) {
    const AttentionCall attention = [&](const Var& q, const Var& k, const Var& v, const Offsets& offsets) {
      return ops::linear_attention({q, k * 0.2, v}, offsets, {.heads = 2, .rule = rule}).output;
    };
    for (const std::int64_t kept : {1, 40, 64, 117}) CHECK(is_causal(attention, attention_case({200}, 16, 16), kept));
  }
}

TEST_CASE("a sequence of linear attention is the same bits alone and in company", "[linear_attention]") {
  for (const Case& each : cases()) {
    INFO(describe(each));
    const std::vector<std::int64_t> lengths{5, 0, 70, 1, 200, 33};
    const Call call = call_of(lengths, each);
    const Results all = run(call);
    for (std::int64_t i = 0; i < call.offsets.count(); ++i) {
      const std::int64_t begin = call.offsets.at(i), end = call.offsets.at(i + 1);
      const auto own = [&](const Tensor& x) { return x.defined() && x.rank() == 2 ? rows_between(x, begin, end) : x; };
      Call alone = call;
      for (Tensor& x : alone.inputs) x = own(x);
      alone.inputs[5] = rows_between(call.inputs[5], i, i + 1);
      alone.of_output = own(call.of_output);
      alone.of_state = rows_between(call.of_state, i, i + 1);
      alone.offsets = Offsets::single(end - begin);
      const Results one = run(alone);
      CHECK(identical(one.output, own(all.output)));
      CHECK(identical(one.state, rows_between(all.state, i, i + 1)));
      for (std::size_t j = 0; j < 5; ++j) {
        // A constant's gradient is a sum over all sequences.
        if (one.gradients[j].defined() && one.gradients[j].rank() == 2)
          CHECK(identical(one.gradients[j], own(all.gradients[j])));
      }
      CHECK(identical(one.gradients[5], rows_between(all.gradients[5], i, i + 1)));
    }
  }
}

TEST_CASE("strong and absent decays of linear attention are exact, and have no NaN", "[linear_attention]") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const UpdateRule rule : {UpdateRule::gated, UpdateRule::gated_delta}) {
    for (const Gates gates : {Gates::shared, Gates::memory, Gates::channel, Gates::value_channel}) {
      if (gates == Gates::value_channel && rule != UpdateRule::gated) continue;
      for (const double strong : {-20.0, -1000.0, -infinity}) {
        INFO(describe({rule, gates}) << ", log decay " << strong);
        Call call = call_of({150, 70}, {rule, gates}, DType::f64);
        const std::span<double> decay = call.inputs[3].mutable_span<double>();
        for (std::size_t i = 0; i < decay.size(); ++i) decay[i] = i % 5 == 0 ? strong : i % 5 == 1 ? 0 : decay[i];
        const Results chunked = run(call);
        call.options.execution = LinearExecution::naive;
        const Results definition = run(call);
        check_equal(definition, chunked, 1e-11);
        if (std::isinf(strong)) {
          for (std::size_t i = 0; i < decay.size(); i += 5) CHECK(chunked.gradients[3].data<double>()[i] == 0);
        }
      }
    }
  }
  // No decay is the rule without one.
  for (const UpdateRule rule : {UpdateRule::gated, UpdateRule::gated_delta}) {
    Call call = call_of({100}, {rule, Gates::channel}, DType::f64, 0);
    const Results decayed = run(call);
    call.inputs[3] = Tensor();
    call.options.rule = rule == UpdateRule::gated ? UpdateRule::linear : UpdateRule::delta;
    const Results plain = run(call);
    CHECK(largest_difference(decayed.output, plain.output) < 1e-13);
    CHECK(largest_difference(decayed.gradients[1], plain.gradients[1]) < 1e-12);
  }
}

TEST_CASE("linear attention over a long history with strong gates has no NaN, in f32", "[linear_attention]") {
  for (const Case& each : {Case{UpdateRule::gated, Gates::channel}, Case{UpdateRule::gated_delta, Gates::shared},
                           Case{UpdateRule::gated_delta, Gates::channel}}) {
    INFO(describe(each));
    const Call call = call_of({43'884}, each, DType::f32, 30);
    const Results results = run(call);
    CHECK(all_finite(results.output));
    CHECK(all_finite(results.state));
    for (const Tensor& gradient : results.gradients) CHECK((!gradient.defined() || all_finite(gradient)));
  }
}

TEST_CASE("linear attention does not drift over 100,000 rows", "[linear_attention]") {
  for (const Case& each : {Case{UpdateRule::linear, Gates::none}, Case{UpdateRule::gated, Gates::memory},
                           Case{UpdateRule::delta, Gates::none}, Case{UpdateRule::gated_delta, Gates::memory}}) {
    INFO(describe(each));
    const Call call = call_of({100'000}, each, DType::f32, 0.001);
    std::vector<Var> in, precise;
    for (const Tensor& x : call.inputs) {
      in.push_back(x.defined() ? Var(x) : Var());
      precise.push_back(x.defined() ? Var(x.to(DType::f64)) : Var());
    }
    const ops::LinearAttentionResult result = ops::linear_attention(as_inputs(in), call.offsets, call.options),
                                     exact = ops::linear_attention(as_inputs(precise), call.offsets, call.options);
    CHECK(largest_difference(exact.output.value(), result.output.value()) < 1e-5);

    // One event at a time: sums in double, whatever came before.
    LinearAttentionMemory memory =
        ops::linear_attention_memory(rows_between(call.inputs[5], 0, 1).reshape({kMemories, kWidth, kValueWidth}));
    Tensor stepped(result.output.shape());
    const auto row = [](const Tensor& x, std::int64_t t) {
      if (!x.defined()) return std::span<const float>();
      return x.span<float>().subspan(static_cast<std::size_t>(t * x.dim(1)), static_cast<std::size_t>(x.dim(1)));
    };
    for (std::int64_t t = 0; t < 100'000; ++t) {
      ops::linear_attention_step(memory, row(call.inputs[0], t), row(call.inputs[1], t), row(call.inputs[2], t),
                                 row(call.inputs[3], t), row(call.inputs[4], t),
                                 stepped.mutable_span<float>().subspan(
                                     static_cast<std::size_t>(t * kHeads * kValueWidth), kHeads * kValueWidth),
                                 call.options);
    }
    CHECK(largest_difference(exact.output.value(), stepped) < 1e-6);
    CHECK(largest_difference(exact.final_state.value(), memory.to_tensor()) < 1e-6);
  }
}

TEST_CASE("keys of zeros write nothing and only decay", "[linear_attention]") {
  for (const Case& each : cases()) {
    INFO(describe(each));
    Call call = call_of({90}, each, DType::f64, 0.01);
    call.inputs[1].fill(0);
    const Results results = run(call);
    // k = 0 gives the value no way in.
    CHECK(largest_difference(results.gradients[2], Tensor::zeros(results.gradients[2].shape(), DType::f64)) == 0);
    if (each.gates == Gates::none) CHECK(identical(results.state, call.inputs[5]));
  }
}

TEST_CASE("a gated delta rule decays before it reads", "[linear_attention]") {
  // S_0 = 1, a = 1/2, k = b = 1, v = 1: the memory holds 1/2 at k, so that 1/2 + (1 - 1/2) = 1 is left; read before it
  // decays, 1/2 + (1 - 1) = 1/2 would be.
  const auto one = [](double x, const Shape& shape) { return Var(Tensor::from<double>({x}, shape)); };
  for (const auto& [word, execution] : ops::words(LinearExecution())) {
    const ops::LinearAttentionResult result = ops::linear_attention(
        {one(1, {1, 1}), one(1, {1, 1}), one(1, {1, 1}), one(std::log(0.5), {1, 1}), {}, one(1, {1, 1, 1, 1})},
        Offsets::single(1), {.rule = UpdateRule::gated_delta, .execution = execution});
    CHECK(result.output.value().item() == Approx(1));
    CHECK(result.final_state.value().item() == Approx(1));
  }
}

TEST_CASE("a delta rule with gain 1 holds the latest value of a key", "[linear_attention]") {
  // One key of length 1, rewritten: the linear rule sums, the delta rule replaces.
  const Tensor keys = Tensor::from<double>({0.6, 0.8, 0.6, 0.8, 0.6, 0.8}, {3, 2}),
               values = Tensor::from<double>({5, -2, 7}, {3, 1});
  const auto last = [&](UpdateRule rule) {
    return ops::linear_attention({Var(keys), Var(keys), Var(values)}, Offsets::single(3), {.rule = rule, .scale = 1})
        .output.value()
        .to_doubles()[2];
  };
  CHECK(last(UpdateRule::delta) == Approx(7));
  CHECK(last(UpdateRule::linear) == Approx(10));
}

TEST_CASE("rows after the last full chunk have their decays' gradients", "[linear_attention]") {
  for (const Case& each : {Case{UpdateRule::gated, Gates::shared}, Case{UpdateRule::gated_delta, Gates::channel},
                           Case{UpdateRule::gated, Gates::value_channel}}) {
    const Results results = run(call_of({70}, each, DType::f64));
    const std::int64_t columns = results.gradients[3].dim(1);
    for (std::int64_t t = 64; t < 70; ++t) CHECK(results.gradients[3].data<double>()[t * columns] != 0);
  }
}

TEST_CASE("linear attention event by event is that over the whole sequence", "[linear_attention]") {
  for (const Case& each : cases()) {
    INFO(describe(each));
    Call call = call_of({140}, each);
    call.inputs[5] = Tensor();
    std::vector<Var> in;
    for (const Tensor& x : call.inputs) in.push_back(x.defined() ? Var(x) : Var());
    const ops::LinearAttentionResult whole = ops::linear_attention(as_inputs(in), call.offsets, call.options);
    LinearAttentionMemory memory = ops::linear_attention_memory(kMemories, kWidth, kValueWidth);
    Tensor stepped(whole.output.shape());
    const auto row = [](const Tensor& x, std::int64_t t) {
      if (!x.defined() || x.rank() == 1) return x.defined() ? x.span<float>() : std::span<const float>();
      return x.span<float>().subspan(static_cast<std::size_t>(t * x.dim(1)), static_cast<std::size_t>(x.dim(1)));
    };
    for (std::int64_t t = 0; t < 140; ++t) {
      if (t == 77) memory = LinearAttentionMemory::load(memory.save(), memory);
      ops::linear_attention_step(memory, row(call.inputs[0], t), row(call.inputs[1], t), row(call.inputs[2], t),
                                 row(call.inputs[3], t), row(call.inputs[4], t),
                                 stepped.mutable_span<float>().subspan(
                                     static_cast<std::size_t>(t * kHeads * kValueWidth), kHeads * kValueWidth),
                                 call.options);
    }
    CHECK(largest_difference(whole.output.value(), stepped) < 3e-6);
    CHECK(largest_difference(whole.final_state.value(), memory.to_tensor()) < 3e-6);
  }
}

TEST_CASE("a memory of linear attention refuses what is not its own", "[linear_attention]") {
  LinearAttentionMemory memory = ops::linear_attention_memory(1, 2, 1);
  const std::vector<float> two{1, 2}, one{1}, none, high{0.5f}, large{3}, wrong{std::nanf("")};
  std::vector<float> out(1);
  const LinearAttentionOptions gated{.rule = UpdateRule::gated}, delta{.rule = UpdateRule::delta};
  ops::linear_attention_step(memory, two, two, one, none, none, out);
  const LinearAttentionMemory before = memory;
  CHECK_THROWS_WITH(ops::linear_attention_step(memory, one, two, one, none, none, out), Contains("q of 2"));
  CHECK_THROWS_WITH(ops::linear_attention_step(memory, two, two, one, none, none, out, gated), Contains("got none"));
  CHECK_THROWS_WITH(ops::linear_attention_step(memory, two, two, one, high, none, out, gated), Contains("got 0.5"));
  CHECK_THROWS_WITH(ops::linear_attention_step(memory, two, two, one, none, large, out, delta), Contains("[0, 2]"));
  CHECK_THROWS_WITH(ops::linear_attention_step(memory, two, two, wrong, none, none, out), Contains("finite v"));
  CHECK_THROWS_WITH(
      ops::linear_attention_step(memory, two, two, one, none, none, out, {.mask = AttentionMask::bidirectional}),
      Contains("causal mask"));
  CHECK(memory == before);
  std::string bytes = memory.save();
  CHECK(LinearAttentionMemory::load(bytes, memory) == memory);
  CHECK_THROWS_WITH(LinearAttentionMemory::load(bytes, ops::linear_attention_memory(1, 1, 2)), Contains("[1, 2]; got"));
  CHECK_THROWS_WITH(LinearAttentionMemory::load(bytes.substr(0, 40), memory), Contains("cut off"));
  bytes[36] ^= 1;
  CHECK_THROWS_WITH(LinearAttentionMemory::load(bytes, memory), Contains("damaged"));
  CHECK_THROWS_WITH(ops::linear_attention_memory(0, 1, 1), Contains("sizes above 0"));
  LinearAttentionMemory empty;
  CHECK_THROWS_WITH(ops::linear_attention_step(empty, two, two, one, none, none, out), Contains("made by"));
}

TEST_CASE("gradients of long linear attention are the same bits on any number of threads", "[linear_attention]") {
  const int before = num_threads();
  for (const Case& each :
       {Case{UpdateRule::gated_delta, Gates::channel}, Case{UpdateRule::gated, Gates::value_channel}}) {
    const Call call = call_of({3000, 10, 500}, each);
    set_num_threads(1);
    const Results one = run(call);
    set_num_threads(8);
    const Results eight = run(call);
    set_num_threads(before);
    CHECK(identical(one.output, eight.output));
    for (std::size_t i = 0; i < one.gradients.size(); ++i) CHECK(identical(one.gradients[i], eight.gradients[i]));
  }
}

}  // namespace linear_attention_test
