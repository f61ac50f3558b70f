#include "tally/recsys/models/recurrent_model.h"

#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/core/io/fingerprint.h"
#include "tally/core/parallel.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kModelState = "ModelState";
constexpr std::string_view kMagic = "tally.state.xxh3";  // its terminator is saved too
// Of builds that had a hash of their own, in which fingerprint and checksum are.
constexpr std::string_view kEarlierMagic("tally.state\0", 12);

/// One event is too little to share among threads, and nothing of it belongs on a tape.
struct OneEvent {
  Paused paused;
  SerialScope serial;
};

}  // namespace

ModelState::ModelState(const ModelState& other)
    : fingerprint_(other.fingerprint_),
      events_(other.events_),
      content_(other.content_ ? other.content_->clone() : nullptr) {}

std::string ModelState::save() const {
  check<ValueError>(content_ != nullptr, kModelState, "of no model has nothing to save");
  std::string bytes(kMagic);
  bytes.push_back('\0');
  write_value(bytes, content_->version());
  write_value(bytes, static_cast<std::uint32_t>(dtype()));
  write_value(bytes, fingerprint_);
  write_value(bytes, events_);
  content_->save(bytes);
  write_value(bytes, tally::fingerprint(bytes));
  return bytes;
}

RecurrentModel::RecurrentModel(std::string name, std::string layout, std::uint32_t version, std::uint64_t weights,
                               ItemScorer scorer)
    : name_(std::move(name)), layout_(std::move(layout)), version_(version), scorer_(std::move(scorer)) {
  Fingerprint all;
  for (const std::string& part : {name_, layout_, std::to_string(weights)}) all.update(part);
  fingerprint_ = all.value();
}

void RecurrentModel::check_state(const ModelState& state) const {
  check<ValueError>(state.content_ != nullptr, kModelState, "belongs to no model; make one with initial_state()");
  check<ValueError>(state.fingerprint_ == fingerprint_, kModelState, "is of another model: its fingerprint is ",
                    state.fingerprint_, "; ", name_, " (", layout_, ") has ", fingerprint_);
}

void RecurrentModel::check_item(std::int32_t item) const {
  check<IndexError>(item >= 0 && item < num_items(), name_, "needs an item in [0, ", num_items(), "); got ", item);
}

void RecurrentModel::check_event(std::int32_t item, double time) const {
  check_item(item);
  check<ValueError>(!reads_times() || std::isfinite(time), name_,
                    "reads when events were, and needs the time of each; got item ", item, " without one");
}

void RecurrentModel::check_row(std::span<float> row) const {
  check<ShapeError>(static_cast<std::int64_t>(row.size()) == width(), name_, "needs room for a hidden row of ", width(),
                    " elements; got ", row.size());
}

void RecurrentModel::append(ModelState& state, std::int32_t item, double time) const {
  check_state(state);
  check_event(item, time);
  const OneEvent scope;
  append_to(state, item, time);
  ++state.events_;
}

void RecurrentModel::hidden(const ModelState& state, std::span<float> row) const {
  check_state(state);
  check_row(row);
  check<ValueError>(state.events_ > 0, name_, "has a hidden row once an event was appended");
  const OneEvent scope;
  hidden_of(state, row);
}

void RecurrentModel::step(ModelState& state, std::int32_t item, std::span<float> row, double time) const {
  check_state(state);
  check_event(item, time);
  check_row(row);
  const OneEvent scope;
  append_to(state, item, time);
  ++state.events_;
  hidden_of(state, row);
}

void RecurrentModel::merge(ModelState& state, const ModelState& earlier) const {
  check_state(state);
  check_state(earlier);
  const std::int64_t events = earlier.events_;
  merge_into(state, earlier);
  state.events_ += events;
}

void RecurrentModel::remove(ModelState& state, std::int32_t item) const {
  check_state(state);
  check_item(item);
  check<ValueError>(state.events_ > 0, name_, "takes back events that were appended; there are none");
  remove_from(state, item);
  --state.events_;
}

ModelState RecurrentModel::load_state(std::string_view bytes) const {
  ByteReader in(bytes, kModelState);
  check<IoError>(
      !bytes.starts_with(kEarlierMagic), kModelState,
      "the saved state is of an earlier build, which had another hash: begin again with the events of its user");
  const std::string_view magic = in.take(kMagic.size() + 1);
  check<IoError>(magic.substr(0, kMagic.size()) == kMagic && magic.back() == '\0', kModelState,
                 "these bytes are no saved state");
  const auto version = in.read<std::uint32_t>();
  const auto dtype = in.read<std::uint32_t>();
  const auto of = in.read<std::uint64_t>();
  check<ValueError>(of == fingerprint_, kModelState, "the saved state is of another model",
                    version == version_ ? "" : ", or of this one in a build that keeps other states",
                    ": its fingerprint is ", of, ", its version ", version, "; ", name_, " (", layout_, ") has ",
                    fingerprint_, " and version ", version_);
  check<IoError>(version == version_, kModelState, "needs a state of version ", version_, "; got ", version);
  check<IoError>(dtype == static_cast<std::uint32_t>(DType::f32), kModelState,
                 "reads states of f32; got the element type numbered ", dtype);
  check<IoError>(in.left() >= 2 * sizeof(std::uint64_t), kModelState, "the saved state is cut off");
  const std::string_view kept = bytes.substr(0, bytes.size() - sizeof(std::uint64_t));
  ByteReader last(bytes.substr(kept.size()), kModelState);
  check<IoError>(last.read<std::uint64_t>() == tally::fingerprint(kept), kModelState,
                 "the saved state is cut off or damaged: its checksum differs");
  ByteReader content(kept.substr(bytes.size() - in.left()), kModelState);
  const auto events = content.read<std::int64_t>();
  check<IoError>(events >= 0, kModelState, "the saved state has ", events, " events");
  ModelState state = read_state(content, events);
  content.expect_end();
  return state;
}

}  // namespace tally::recsys
