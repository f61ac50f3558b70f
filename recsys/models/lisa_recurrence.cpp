#include "tally/recsys/models/lisa_recurrence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/recsys/models/lisa_serving.h"
#include "tally/recsys/models/weights_fingerprint.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kLisa = "lisa";

Tensor one(std::int32_t number) { return Tensor::from<std::int32_t>({number}, {1}); }

/// What decides what a state of a model with full targets means, beside sizes.
std::string kind_of(const Lisa& model) {
  const ops::VectorQuantizationOptions& quantization = model.quantizer.options.quantization;
  return fmt::format("lisa {}{}, full targets, similarity {}, temperature {}, {}, epsilon {}", word_of(model.variant),
                     model.blocks[0].attention.soft_query ? " with soft queries" : "", word_of(quantization.similarity),
                     quantization.temperature, quantization.residual ? "residual" : "not residual",
                     model.blocks[0].attention_norm.epsilon);
}

}  // namespace

std::size_t LisaRecurrence::State::heap_bytes() const {
  std::size_t total =
      row.capacity() * sizeof(float) + (blocks.capacity() - blocks.size()) * sizeof(ops::HistogramState);
  for (const ops::HistogramState& block : blocks) total += block.bytes();
  return total;
}

void LisaRecurrence::State::save(std::string& to) const {
  write_value(to, latest);
  write_values(to, std::span<const float>(row));
  for (const ops::HistogramState& block : blocks) block.write(to);
}

LisaRecurrence::LisaRecurrence(std::string kind, const Lisa& model, const LisaPrepared& items, ItemScorer scorer)
    : kind_(std::move(kind)), model_(model), items_(items), scorer_(std::move(scorer)) {
  check<ValueError>(model_.alignment == PositionAlignment::start || model_.blocks.size() == 1, kLisa, "of ",
                    model_.blocks.size(),
                    " blocks takes events one at a time when positions count from the window's start; they count from "
                    "its end, so that every event moves all earlier ones");
  check<DTypeError>(model_.positions.table.value().dtype() == DType::f32, kLisa,
                    "takes events with weights of f32; got ", model_.positions.table.value().dtype());
  // The model may go on training: nothing is shared with its parameters.
  walk_vars(items_, [](Var& var) { var = Var(var.value().clone()); });
  for (std::size_t b = 0; b < model_.blocks.size(); ++b) {
    const nn::HistogramSelfAttention& attention = model_.blocks[b].attention;
    check<ValueError>(attention.assignment != ops::CodewordAssignment::soft || attention.window == 0, kLisa,
                      "takes events one at a time without a counts_window when assignments are soft; got a window of ",
                      attention.window);
    const nn::HistogramTables& tables = items_.blocks[b].tables;
    blocks_.push_back({.reader = ops::HistogramReader(tables.inner.value(), tables.values.value()),
                       .layout = attention.layout(tables.inner.dim(0), tables.inner.dim(1))});
  }
}

std::string LisaRecurrence::layout() const {
  const Block& first = blocks_[0];
  return fmt::format(
      "{}, {} blocks, {} codebooks of {} codewords, decay {}, counts window {}, activation {}, window {}, positions "
      "from the {}",
      kind_, blocks_.size(), first.layout.codebooks, first.layout.words, first.layout.rate, first.layout.window,
      word_of(model_.blocks[0].feed_forward.activation), model_.window, word_of(model_.alignment));
}

LisaRecurrence::State LisaRecurrence::initial_state() const {
  State state;
  state.blocks.reserve(blocks_.size());
  for (const Block& block : blocks_) state.blocks.emplace_back(block.layout);
  return state;
}

Tensor LisaRecurrence::pass(std::int32_t item, std::int64_t events, const Lisa::Attend& attend) const {
  const std::int64_t window = model_.window;
  const std::int64_t place = model_.alignment == PositionAlignment::start ? std::min(events, window) : window;
  return model_.forward(one(item), one(static_cast<std::int32_t>(place - 1)), items_, {}, attend).value().contiguous();
}

ops::VectorQuantization LisaRecurrence::quantized(std::int32_t item) const {
  return model_.quantized(items_.items.rows(one(item)), items_);
}

void LisaRecurrence::append(State& state, std::int64_t events, std::int32_t item) const {
  if (blocks_.size() == 1) {
    model_.blocks[0].attention.append(state.blocks[0], quantized(item));
    state.latest = item;
    return;
  }
  // A later block throws at rows that are not finite, when the tallies before it have taken the event. So all but the
  // last are changed in copies.
  std::vector<ops::HistogramState> taken(state.blocks.begin(), state.blocks.end() - 1);
  const Tensor row = pass(item, events + 1, [&](std::size_t b, const ops::VectorQuantization& rows) {
    ops::HistogramState& tally = b < taken.size() ? taken[b] : state.blocks[b];
    model_.blocks[b].attention.append(tally, rows);
    return model_.blocks[b].attention.attend(tally, rows, blocks_[b].reader);
  });
  std::move(taken.begin(), taken.end(), state.blocks.begin());
  state.row.assign(row.data<float>(), row.data<float>() + width());
  state.latest = item;
}

void LisaRecurrence::hidden(const State& state, std::int64_t events, std::span<float> row) const {
  check<ValueError>(state.latest >= 0, kLisa,
                    "has no hidden row after the latest event was taken back, until the next is appended");
  if (blocks_.size() > 1) {
    std::copy(state.row.begin(), state.row.end(), row.begin());
    return;
  }
  const Tensor hidden = pass(state.latest, events, [&](std::size_t b, const ops::VectorQuantization& rows) {
    return model_.blocks[b].attention.attend(state.blocks[b], rows, blocks_[b].reader);
  });
  std::copy_n(hidden.data<float>(), width(), row.begin());
}

void LisaRecurrence::merge(State& state, std::int64_t events, const State& earlier, std::int64_t) const {
  check<ValueError>(blocks_.size() == 1, kLisa, "merges states of one block; got ", blocks_.size(),
                    ", of which the later ones tally what depends on all events before");
  state.blocks[0].merge(earlier.blocks[0], events);
  if (events == 0) state.latest = earlier.latest;
}

void LisaRecurrence::remove(State& state, std::int64_t, std::int32_t item) const {
  check<ValueError>(blocks_.size() == 1, kLisa, "takes events back from a state of one block; got ", blocks_.size(),
                    ", of which the later ones tally what depends on all events before");
  model_.blocks[0].attention.remove(state.blocks[0], quantized(item));
  if (item == state.latest) state.latest = -1;
}

LisaRecurrence::State LisaRecurrence::load(ByteReader& bytes, std::int64_t events) const {
  State state;
  state.latest = bytes.read<std::int32_t>();
  const std::int64_t items = items_.codes.dim(0);
  check<IoError>(state.latest >= -1 && state.latest < items, kLisa, "the saved state has item ", state.latest, " of ",
                 items);
  if (blocks_.size() > 1 && state.latest >= 0) {
    state.row.resize(static_cast<std::size_t>(width()));
    bytes.read(std::span(state.row));
    check<IoError>(std::all_of(state.row.begin(), state.row.end(), [](float x) { return std::isfinite(x); }), kLisa,
                   "the saved state has a hidden row that is not finite");
  }
  state.blocks.reserve(blocks_.size());
  for (const Block& block : blocks_) state.blocks.push_back(ops::HistogramState::read(bytes, block.layout, events));
  return state;
}

std::shared_ptr<const RecurrentModel> LisaServing::recurrent() const {
  return std::make_shared<RecurrentModelOf<LisaRecurrence>>(
      name(), weights_fingerprint(tensors()), LisaRecurrence(name() + ' ' + settings(), model(), prepared(), scorer()));
}

std::shared_ptr<const RecurrentModel> Lisa::recurrent(const std::string& name, std::uint64_t weights) const {
  // One form of a model, whether its weights are a run's or a compressed file's: states pass from one to the other.
  if (!full_targets) return LisaServing::from(*this).recurrent();
  const Paused paused;
  LisaPrepared prepared = prepare(BatchItems::all(num_items()));
  ItemScorer scorer = ItemScorer::of_table(candidate_table(prepared).value());
  prepared.targets.reset();
  if (!full_stream) prepared.embedded.reset();
  return std::make_shared<RecurrentModelOf<LisaRecurrence>>(
      name, weights, LisaRecurrence(kind_of(*this), without_tables(), prepared, std::move(scorer)));
}

}  // namespace tally::recsys
