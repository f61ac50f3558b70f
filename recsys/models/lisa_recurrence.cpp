#include "tally/recsys/models/lisa_recurrence.h"

#include <fmt/format.h>

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/ops/softmax.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kName = "lisa";

std::span<const float> row_of(const Tensor& table, std::int64_t row) {
  const auto width = static_cast<std::size_t>(table.dim(1));
  return table.span<float>().subspan(static_cast<std::size_t>(row) * width, width);
}

std::vector<std::int32_t> codes_of(const Tensor& codes) {
  const Tensor wide = codes.to(DType::i32);
  const auto values = wide.span<std::int32_t>();
  return {values.begin(), values.end()};
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

LisaRecurrence::LisaRecurrence(const Lisa& model) {
  check<ValueError>(model.alignment == PositionAlignment::start || model.blocks.size() == 1, kName, "of ",
                    model.blocks.size(),
                    " blocks takes events one at a time when positions count from the window's start; they count from "
                    "its end, so that every event moves all earlier ones");
  check<DTypeError>(model.items.table.value().dtype() == DType::f32, kName, "takes events with weights of f32; got ",
                    model.items.table.value().dtype());
  const Paused paused;
  const LisaItems items = model.quantized_items();
  candidates_ = items.candidates;
  codes_ = items.codes.to(DType::i32).contiguous();
  reconstruction_ = items.reconstruction.contiguous();
  positions_ = model.positions.table.value().clone();
  alignment_ = model.alignment;
  const bool soft = model.variant == LisaVariant::soft;
  if (soft) {
    const Shape& shape = items.logits.shape();
    assignments_ = ops::softmax(items.logits).value().contiguous().reshape({shape[0], shape[1] * shape[2]});
  }
  for (const LisaBlock& block : model.blocks) {
    const nn::VectorQuantizer& quantizer = block.quantizer ? *block.quantizer : model.quantizer;
    const nn::HistogramTables tables = block.attention.tables(quantizer.codewords());
    const Shape& shape = tables.inner.shape();
    blocks_.push_back({.block = block,
                       .quantizer = block.quantizer ? block.quantizer->tables() : ops::VectorQuantizationTables(),
                       .reader = ops::HistogramReader(tables.inner.value(), tables.values.value()),
                       .layout = {.codebooks = shape[0],
                                  .words = shape[1],
                                  .window = block.attention.window,
                                  .rate = block.attention.current_decay(),
                                  .soft = soft}});
  }
  const nn::VectorQuantizer& quantizer = model.quantizer;
  settings_ = fmt::format(
      "lisa {}{}, {} blocks, {} codebooks of {} codewords, similarity {}, temperature {}, {}, decay {}, counts window "
      "{}, "
      "activation {}, window {}, positions from the {}",
      name_of(model.variant), model.blocks[0].attention.soft_query ? " with soft queries" : "", blocks_.size(),
      blocks_[0].layout.codebooks, blocks_[0].layout.words, static_cast<int>(quantizer.options.quantization.similarity),
      quantizer.options.quantization.temperature, quantizer.options.quantization.residual ? "residual" : "not residual",
      blocks_[0].layout.rate, blocks_[0].layout.window, static_cast<int>(model.blocks[0].feed_forward.activation),
      model.window, model.alignment == PositionAlignment::start ? "start" : "end");
}

std::string LisaRecurrence::layout() const { return settings_; }

LisaRecurrence::State LisaRecurrence::initial_state() const {
  State state;
  state.blocks.reserve(blocks_.size());
  for (const Block& block : blocks_) state.blocks.emplace_back(block.layout);
  return state;
}

LisaRecurrence::Event LisaRecurrence::item_event(std::int32_t item) const {
  const auto codebooks = static_cast<std::size_t>(codes_.dim(1));
  const auto codes = codes_.span<std::int32_t>().subspan(static_cast<std::size_t>(item) * codebooks, codebooks);
  Event event{{codes.begin(), codes.end()}, {}};
  if (assignments_.defined()) {
    const auto assignments = row_of(assignments_, item);
    event.assignments.assign(assignments.begin(), assignments.end());
  }
  return event;
}

LisaRecurrence::Event LisaRecurrence::row_event(const Block& block, const Var& x) const {
  const ops::VectorQuantization quantized = (*block.block.quantizer)(x, block.quantizer);
  Event event{codes_of(quantized.codes), {}};
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
  const std::int64_t width = reconstruction_.dim(1), window = positions_.dim(0);
  const auto vector = row_of(reconstruction_, item);
  const std::int64_t place = alignment_ == PositionAlignment::start ? std::min(events, window) : window;
  const auto position = row_of(positions_, place - 1);
  Tensor start({1, width});
  float* const x0 = start.mutable_data<float>();
  for (std::size_t i = 0; i < vector.size(); ++i) x0[i] = vector[i] + position[i];
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
    x = blocks_[b].block.after_attention(Var(attended), x, {});
  }
  const Tensor result = x.value().contiguous();
  std::copy_n(result.data<float>(), width, row.begin());
}

void LisaRecurrence::append(State& state, std::int64_t events, std::int32_t item) const {
  run(state, &state, events + 1, item, {});
  state.latest = item;
}

void LisaRecurrence::step(State& state, std::int64_t events, std::int32_t item, std::span<float> row) const {
  run(state, &state, events + 1, item, row);
  state.latest = item;
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

std::shared_ptr<const RecurrentModel> Lisa::recurrent(const std::string& name, std::uint64_t weights) const {
  return std::make_shared<RecurrentModelOf<LisaRecurrence>>(name, weights, LisaRecurrence(*this));
}

}  // namespace tally::recsys
