#include "tally/ops/attention/linear_attention_memory.h"

#include <algorithm>
#include <cmath>

#include "tally/core/bytes.h"
#include "tally/core/io/fingerprint.h"
#include "tally/ops/attention/linear_attention_call.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "linear_attention_step";
constexpr std::string_view kMemory = "linear attention memory";
constexpr std::uint32_t kSavedMagic = 0x4d41'4c54;  // "TLAM"
constexpr std::uint32_t kSavedVersion = 1;

std::size_t place(std::int64_t i) { return static_cast<std::size_t>(i); }

void check_memory(std::string_view op, const LinearAttentionMemory& memory) {
  check<ShapeError>(memory.memories > 0 && memory.width > 0 && memory.value_width > 0 &&
                        memory.sums.size() == place(memory.memories * memory.width * memory.value_width),
                    op, "needs a memory made by linear_attention_memory(); got ", memory.memories, " memories [",
                    memory.width, ", ", memory.value_width, "] and ", memory.sums.size(), " numbers");
}

void check_finite(std::string_view name, std::span<const float> x) {
  const auto wrong = std::find_if(x.begin(), x.end(), [](float each) { return !std::isfinite(each); });
  check<ValueError>(wrong == x.end(), kName, "needs finite ", name, "; got ", wrong == x.end() ? 0 : *wrong,
                    " in column ", wrong - x.begin());
}

}  // namespace

Tensor LinearAttentionMemory::to_tensor() const {
  return Tensor::from(sums, {1, memories, width, value_width}).to(DType::f32);
}

std::string LinearAttentionMemory::save() const {
  check_memory(kMemory, *this);
  std::string bytes;
  write_value(bytes, kSavedMagic);
  write_value(bytes, kSavedVersion);
  for (const std::int64_t size : {memories, width, value_width}) write_value(bytes, size);
  write_values(bytes, std::span<const double>(sums));
  write_value(bytes, fingerprint(bytes));
  return bytes;
}

LinearAttentionMemory LinearAttentionMemory::load(std::string_view bytes, const LinearAttentionMemory& like) {
  check_memory(kMemory, like);
  LinearAttentionMemory loaded = like;
  ByteReader reader(bytes, kMemory);
  check<IoError>(reader.read<std::uint32_t>() == kSavedMagic, kMemory, "these bytes are no saved memory");
  const auto version = reader.read<std::uint32_t>();
  check<IoError>(version == kSavedVersion, kMemory, "needs version ", kSavedVersion, " of the saved layout; got ",
                 version);
  for (std::int64_t* size : {&loaded.memories, &loaded.width, &loaded.value_width}) *size = reader.read<std::int64_t>();
  check<ShapeError>(
      loaded.memories == like.memories && loaded.width == like.width && loaded.value_width == like.value_width, kMemory,
      "needs ", like.memories, " memories [", like.width, ", ", like.value_width, "]; got ", loaded.memories, " [",
      loaded.width, ", ", loaded.value_width, "]");
  reader.read(std::span(loaded.sums));
  const std::size_t checked = bytes.size() - reader.left();
  const auto saved = reader.read<std::uint64_t>();
  reader.expect_end();
  check<IoError>(saved == fingerprint(bytes.substr(0, checked)), kMemory, "the saved bytes are damaged");
  check<IoError>(std::all_of(loaded.sums.begin(), loaded.sums.end(), [](double x) { return std::isfinite(x); }),
                 kMemory, "the saved memory has a sum that is not finite");
  return loaded;
}

LinearAttentionMemory linear_attention_memory(std::int64_t memories, std::int64_t width, std::int64_t value_width) {
  check<ValueError>(memories > 0 && width > 0 && value_width > 0, kMemory, "needs sizes above 0; got ", memories,
                    " memories [", width, ", ", value_width, "]");
  return {memories, width, value_width, std::vector<double>(place(memories * width * value_width))};
}

LinearAttentionMemory linear_attention_memory(const Tensor& state) {
  check<ShapeError>(state.rank() == 3, kMemory, "needs a state [memories, d, e]; got ", state.shape());
  LinearAttentionMemory memory = linear_attention_memory(state.dim(0), state.dim(1), state.dim(2));
  memory.sums = state.to(DType::f64).to_doubles();
  return memory;
}

void linear_attention_step(LinearAttentionMemory& memory, std::span<const float> q, std::span<const float> k,
                           std::span<const float> v, std::span<const float> log_decay, std::span<const float> gain,
                           std::span<float> output, const LinearAttentionOptions& options) {
  check_memory(kName, memory);
  const std::int64_t memories = memory.memories, width = memory.width, value_width = memory.value_width;
  check<ValueError>(options.heads > 0 && options.heads % memories == 0, kName, "needs heads that ", memories,
                    " memories divide; got ", options.heads);
  check<ValueError>(options.mask == AttentionMask::causal, kName, "needs a causal mask; got a bidirectional one");
  check<ValueError>(std::isfinite(options.scale), kName, "needs a finite scale; got ", options.scale);
  check<ShapeError>(q.size() == place(options.heads * width) && k.size() == place(memories * width) &&
                        v.size() == place(memories * value_width) &&
                        output.size() == place(options.heads * value_width),
                    kName, "needs q of ", options.heads * width, ", k of ", memories * width, ", v of ",
                    memories * value_width, " and output of ", options.heads * value_width, " elements; got ", q.size(),
                    ", ", k.size(), ", ", v.size(), " and ", output.size());
  detail::check_rule(kName, options, !log_decay.empty());
  const detail::MemorySizes sizes{options.heads, memories, width, value_width,
                                  options.scale == 0 ? 1 / std::sqrt(static_cast<double>(width)) : options.scale};
  const auto shape_of = [&](std::span<const float> gate, std::optional<DecayAlong> decay) {
    if (gate.empty()) return detail::GateShape::absent;
    return detail::gate_shape(kName, {1, static_cast<std::int64_t>(gate.size())}, 1, sizes, decay);
  };
  const detail::GateShape decay_shape = shape_of(log_decay, options.decay_along), gain_shape = shape_of(gain, {});
  detail::check_log_decay(kName, log_decay, std::max<std::size_t>(log_decay.size(), 1));
  detail::check_gain(kName, gain, std::max<std::size_t>(gain.size(), 1), options.rule);
  check_finite("q", q);
  check_finite("k", k);
  check_finite("v", v);

  const auto gate = [](std::span<const float> gates, detail::GateShape shape, std::int64_t m) {
    return double{gates[shape == detail::GateShape::shared ? 0 : place(m)]};
  };
  const bool channels = decay_shape == detail::GateShape::channel,
             values = channels && options.decay_along == DecayAlong::values;
  std::vector<double> written(place(value_width)), answer(written), left(place(values ? value_width : 0));
  for (std::int64_t m = 0; m < memories; ++m) {
    double* const sums = memory.sums.data() + m * width * value_width;
    const float* key = k.data() + m * width;
    std::copy_n(v.data() + m * value_width, value_width, written.begin());
    for (std::size_t j = 0; j < left.size(); ++j) left[j] = std::exp(double{log_decay[place(m * value_width) + j]});
    for (std::int64_t c = 0; c < width; ++c) {
      double* const row = sums + c * value_width;
      if (values) {
        for (std::int64_t j = 0; j < value_width; ++j) row[j] *= left[place(j)];
      } else if (decays(options.rule)) {
        const double by =
            std::exp(channels ? double{log_decay[place(m * width + c)]} : gate(log_decay, decay_shape, m));
        for (std::int64_t j = 0; j < value_width; ++j) row[j] *= by;
      }
      if (!corrects(options.rule)) continue;
      for (std::int64_t j = 0; j < value_width; ++j) written[place(j)] -= double{key[c]} * row[j];
    }
    if (!gain.empty()) {
      for (double& each : written) each *= gate(gain, gain_shape, m);
    }
    for (std::int64_t c = 0; c < width; ++c) {
      for (std::int64_t j = 0; j < value_width; ++j) sums[c * value_width + j] += double{key[c]} * written[place(j)];
    }
    const std::int64_t group = options.heads / memories;
    for (std::int64_t head = m * group; head < (m + 1) * group; ++head) {
      std::fill(answer.begin(), answer.end(), 0.0);
      for (std::int64_t c = 0; c < width; ++c) {
        const double asked = sizes.scale * double{q[place(head * width + c)]};
        for (std::int64_t j = 0; j < value_width; ++j) answer[place(j)] += asked * sums[c * value_width + j];
      }
      std::copy(answer.begin(), answer.end(), output.begin() + head * value_width);
    }
  }
}

}  // namespace tally::ops
