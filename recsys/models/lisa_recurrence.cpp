#include "tally/recsys/models/lisa_recurrence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/core/kernels.h"
#include "tally/ops/elementwise.h"
#include "tally/ops/softmax.h"
#include "tally/recsys/models/weights_fingerprint.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kName = "lisa";

std::span<const float> row_of(const Tensor& table, std::int64_t row) {
  const auto width = static_cast<std::size_t>(table.dim(1));
  return table.span<float>().subspan(static_cast<std::size_t>(row) * width, width);
}

/// A row of codes u8 or i32 [T, B].
std::vector<std::int32_t> codes_of(const Tensor& codes, std::int64_t row) {
  const auto take = [&]<class Code>(Code) {
    const Code* const from = codes.data<Code>() + row * codes.dim(1);
    return std::vector<std::int32_t>(from, from + codes.dim(1));
  };
  return codes.dtype() == DType::u8 ? take(std::uint8_t{}) : take(std::int32_t{});
}

std::string_view name_of(LisaVariant variant) {
  switch (variant) {
    case LisaVariant::base:
      return "base";
    case LisaVariant::soft:
      return "soft";
    case LisaVariant::mini:
      return "mini";
  }
  return "unknown";
}

}  // namespace

std::size_t LisaRecurrence::State::heap_bytes() const {
  std::size_t total = (blocks.capacity() - blocks.size()) * sizeof(ops::HistogramState);
  for (const ops::HistogramState& block : blocks) total += block.bytes();
  return total;
}

void LisaRecurrence::State::save(std::string& to) const {
  write_value(to, latest);
  for (const ops::HistogramState& block : blocks) write_text(to, block.save());
}

LisaRecurrence::LisaRecurrence(std::string kind, std::size_t blocks, const Tensor& positions,
                               PositionAlignment alignment)
    : kind_(std::move(kind)), positions_(positions.clone()), alignment_(alignment) {
  check<ValueError>(alignment == PositionAlignment::start || blocks == 1, kName, "of ", blocks,
                    " blocks takes events one at a time when positions count from the window's start; they count from "
                    "its end, so that every event moves all earlier ones");
  check<DTypeError>(positions.dtype() == DType::f32, kName, "takes events with weights of f32; got ",
                    positions.dtype());
}

LisaRecurrence::LisaRecurrence(const Lisa& model)
    : LisaRecurrence("lisa " + std::string(name_of(model.variant)), model.blocks.size(), model.positions.table.value(),
                     model.alignment) {
  check<ValueError>(model.full_targets, kName,
                    "has the recurrent face of LisaServing where targets are sums of codewords");
  const Paused paused;
  const nn::VectorQuantizer& quantizer = model.quantizer;
  const bool soft = model.variant == LisaVariant::soft;
  const ops::VectorQuantizationOptions& how = quantizer.options.quantization;
  kind_ +=
      fmt::format("{}, full targets, similarity {}, temperature {}, {}, epsilon {}",
                  model.blocks[0].attention.soft_query ? " with soft queries" : "", static_cast<int>(how.similarity),
                  how.temperature, how.residual ? "residual" : "not residual", model.blocks[0].attention_norm.epsilon);
  const Var embedded(
      model.items(BatchItems::all(model.num_items()).ids(), std::sqrt(static_cast<double>(model.width()))).value());
  scorer_ = ItemScorer::of_table((embedded * model.score_scale).value());
  if (soft) {
    const ops::VectorQuantization quantized = quantizer(embedded);
    const Shape& shape = quantized.logits.shape();
    codes_ = quantized.codes.contiguous();
    vectors_ = quantized.reconstruction.value().contiguous();
    assignments_ = ops::softmax(quantized.logits).value().contiguous().reshape({shape[0], shape[1] * shape[2]});
  } else {
    codes_ = quantizer.encode(embedded.value()).contiguous();
    codebooks_ = quantizer.codewords().value().clone();
  }
  if (model.full_stream) vectors_ = embedded.value().contiguous();
  const std::vector<Var> attended_positions = model.attend_positions();
  for (std::size_t b = 0; b < model.blocks.size(); ++b) {
    const LisaBlock& block = model.blocks[b];
    const nn::HistogramTables tables =
        block.attention.tables((block.quantizer ? *block.quantizer : quantizer).codewords());
    add_block(block, tables.inner.value(), tables.values.value(),
              attended_positions[b].defined() ? attended_positions[b].value() : Tensor(), soft);
  }
}

LisaRecurrence::LisaRecurrence(const LisaServing& model)
    : LisaRecurrence(model.name() + ' ' + model.settings(), model.weights().blocks.size(),
                     model.weights().positions.table.value(), model.weights().alignment) {
  scorer_ = model.scorer();
  codes_ = model.codes();
  codebooks_ = model.weights().codebooks.value();
  for (const LisaServingBlock& one : model.weights().blocks) {
    add_block(one.block, one.inner.value(), one.values.value(),
              one.attended_positions.defined() ? one.attended_positions.value() : Tensor(), false);
  }
}

void LisaRecurrence::add_block(const LisaBlock& block, const Tensor& inner, const Tensor& values,
                               const Tensor& attended_positions, bool soft) {
  check<ValueError>(!soft || block.attention.window == 0, kName,
                    "takes events one at a time without a counts_window when assignments are soft; got a window of ",
                    block.attention.window);
  blocks_.push_back({.block = block,
                     .quantizer = block.quantizer ? block.quantizer->tables() : ops::VectorQuantizationTables(),
                     .reader = ops::HistogramReader(inner, values),
                     .layout = {.codebooks = inner.dim(0),
                                .words = inner.dim(1),
                                .window = block.attention.window,
                                .rate = block.attention.current_decay(),
                                .soft = soft},
                     .attended_positions = attended_positions});
}

std::string LisaRecurrence::layout() const {
  const Block& first = blocks_[0];
  return fmt::format(
      "{}, {} blocks, {} codebooks of {} codewords, decay {}, counts window {}, activation {}, window {}, "
      "positions "
      "from the {}",
      kind_, blocks_.size(), first.layout.codebooks, first.layout.words, first.layout.rate, first.layout.window,
      static_cast<int>(first.block.feed_forward.activation), positions_.dim(0),
      alignment_ == PositionAlignment::start ? "start" : "end");
}

LisaRecurrence::State LisaRecurrence::initial_state() const {
  State state;
  state.blocks.reserve(blocks_.size());
  for (const Block& block : blocks_) state.blocks.emplace_back(block.layout);
  return state;
}

LisaRecurrence::Event LisaRecurrence::item_event(std::int32_t item) const {
  Event event{codes_of(codes_, item), {}};
  if (assignments_.defined()) {
    const auto assignments = row_of(assignments_, item);
    event.assignments.assign(assignments.begin(), assignments.end());
  }
  return event;
}

void LisaRecurrence::item_vector(std::int32_t item, std::span<float> vector) const {
  if (vectors_.defined()) {
    const auto row = row_of(vectors_, item);
    std::copy(row.begin(), row.end(), vector.begin());
    return;
  }
  const std::int64_t words = codebooks_.dim(1);
  std::fill(vector.begin(), vector.end(), 0.0F);
  std::int64_t first = 0;  // codeword of the codebook
  for (const std::int32_t code : codes_of(codes_, item)) {
    kernels::add_into(vector.data(), codebooks_.data<float>() + (first + code) * codebooks_.dim(2), codebooks_.dim(2));
    first += words;
  }
}

LisaRecurrence::Event LisaRecurrence::row_event(const Block& block, const Var& x) const {
  const ops::VectorQuantization quantized = (*block.block.quantizer)(x, block.quantizer);
  Event event{codes_of(quantized.codes, 0), {}};
  if (block.layout.soft) {
    const Tensor assignments = ops::softmax(quantized.logits).value().contiguous();
    event.assignments.assign(assignments.span<float>().begin(), assignments.span<float>().end());
  }
  return event;
}

void LisaRecurrence::take(ops::HistogramState& tally, const Event& event) const {
  if (event.assignments.empty()) {
    tally.append(event.codes);
  } else {
    tally.append_soft(event.assignments);
  }
}

void LisaRecurrence::run(const State& state, State* appending, std::int64_t events, std::int32_t item,
                         std::span<float> row) const {
  if (row.empty() && blocks_.size() == 1) return take(appending->blocks[0], item_event(item));
  const std::int64_t width = positions_.dim(1), window = positions_.dim(0);
  const std::int64_t place = alignment_ == PositionAlignment::start ? std::min(events, window) : window;
  const auto position = row_of(positions_, place - 1);
  Tensor start({1, width});
  const std::span<float> x0 = start.mutable_span<float>();
  item_vector(item, x0);
  kernels::add_into(x0.data(), position.data(), width);
  Var x(start);
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    const Event event = b == 0 ? item_event(item) : row_event(blocks_[b], x);
    if (appending != nullptr) take(appending->blocks[b], event);
    if (row.empty() && b + 1 == blocks_.size()) return;
    Tensor attended({1, width});
    if (blocks_[b].block.attention.soft_query) {
      state.blocks[b].query_soft(event.assignments, blocks_[b].reader, attended.mutable_span<float>());
    } else {
      state.blocks[b].query(event.codes, blocks_[b].reader, attended.mutable_span<float>());
    }
    if (blocks_[b].attended_positions.defined()) {
      const auto here = row_of(blocks_[b].attended_positions, place - 1);
      kernels::add_into(attended.mutable_data<float>(), here.data(), width);
    }
    x = blocks_[b].block.after_attention(Var(attended), x, {});
  }
  const Tensor result = x.value().contiguous();
  std::copy_n(result.data<float>(), width, row.begin());
}

void LisaRecurrence::append(State& state, std::int64_t events, std::int32_t item) const {
  step(state, events, item, {});
}

void LisaRecurrence::step(State& state, std::int64_t events, std::int32_t item, std::span<float> row) const {
  if (blocks_.size() == 1) {
    run(state, &state, events + 1, item, row);
    state.latest = item;
    return;
  }
  // A later block may throw at rows that are not finite, after the tallies before it have taken the event.
  State next = state;
  run(next, &next, events + 1, item, row);
  next.latest = item;
  state = std::move(next);
}

void LisaRecurrence::hidden(const State& state, std::int64_t events, std::span<float> row) const {
  check<ValueError>(state.latest >= 0, kName,
                    "has no hidden row after the latest event was taken back, until the next is appended");
  run(state, nullptr, events, state.latest, row);
}

void LisaRecurrence::merge(State& state, std::int64_t events, const State& earlier, std::int64_t) const {
  check<ValueError>(blocks_.size() == 1, kName, "merges states of one block; got ", blocks_.size(),
                    ", of which the later ones tally what depends on all events before");
  state.blocks[0].merge(earlier.blocks[0], events);
  if (events == 0) state.latest = earlier.latest;
}

void LisaRecurrence::remove(State& state, std::int64_t, std::int32_t item) const {
  check<ValueError>(blocks_.size() == 1, kName, "takes events back from a state of one block; got ", blocks_.size(),
                    ", of which the later ones tally what depends on all events before");
  state.blocks[0].remove(item_event(item).codes);
  if (item == state.latest) state.latest = -1;
}

LisaRecurrence::State LisaRecurrence::load(ByteReader& bytes, std::int64_t events) const {
  State state;
  state.latest = bytes.read<std::int32_t>();
  check<IoError>(state.latest >= -1 && state.latest < codes_.dim(0), kName, "the saved state has item ", state.latest,
                 " of ", codes_.dim(0));
  state.blocks.reserve(blocks_.size());
  for (const Block& block : blocks_) {
    state.blocks.push_back(ops::HistogramState::load(bytes.text(), block.layout));
    check<IoError>(state.blocks.back().events() == events, kName, "the saved state has ", events,
                   " events, but a tally of ", state.blocks.back().events());
  }
  return state;
}

std::shared_ptr<const RecurrentModel> LisaServing::recurrent() const {
  return std::make_shared<RecurrentModelOf<LisaRecurrence>>(name(), weights_fingerprint(*weights_),
                                                            LisaRecurrence(*this));
}

std::shared_ptr<const RecurrentModel> Lisa::recurrent(const std::string& name, std::uint64_t weights) const {
  // One face of a model, whether its weights are a run's or a compressed file's: states pass from one to the other.
  if (!full_targets) return LisaServing::from(*this).recurrent();
  return std::make_shared<RecurrentModelOf<LisaRecurrence>>(name, weights, LisaRecurrence(*this));
}

}  // namespace tally::recsys
