#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "tally/core/bytes.h"
#include "tally/core/tensor.h"
#include "tally/recsys/models/item_scorer.h"

namespace tally::recsys {

/// What a model remembers of one user's events, of a size that the model fixes. A plain value: copy it, save it, roll
/// back to a copy. Only the RecurrentModel whose weights made it (or one of the same weights) reads it.
class ModelState {
 public:
  /// Of no model: refused by all.
  ModelState() = default;
  ModelState(const ModelState& other);
  ModelState& operator=(const ModelState& other) { return *this = ModelState(other); }
  ModelState(ModelState&&) noexcept = default;
  ModelState& operator=(ModelState&&) noexcept = default;

  /// Of weights and settings of its model.
  std::uint64_t fingerprint() const { return fingerprint_; }
  DType dtype() const { return DType::f32; }
  /// Number of events that it stands for.
  std::int64_t events() const { return events_; }
  /// Memory of this value, heap included.
  std::size_t bytes() const { return sizeof(*this) + (content_ ? content_->bytes() : 0); }
  /// Version of the model's states, element type, fingerprint, event count, what the model keeps, and a checksum,
  /// little-endian.
  std::string save() const;

 private:
  friend class RecurrentModel;
  template <class>
  friend class RecurrentModelOf;

  struct Content {
    virtual ~Content() = default;
    virtual std::unique_ptr<Content> clone() const = 0;
    virtual std::size_t bytes() const = 0;
    virtual void save(std::string& to) const = 0;
    virtual std::uint32_t version() const = 0;
  };

  std::uint64_t fingerprint_ = 0;
  std::int64_t events_ = 0;
  std::unique_ptr<Content> content_;
};

/// When an event was, where that is not known.
inline constexpr double kNoTime = std::numeric_limits<double>::quiet_NaN();

/// The recurrent form of a model: the weights as they stood when it was made, in the form that takes one event at a
/// time. It shares nothing with the model, never changes, and may be used by many threads, on different states.
class RecurrentModel {
 public:
  virtual ~RecurrentModel() = default;

  const std::string& name() const { return name_; }
  /// The state in words: what is kept, of which sizes.
  const std::string& layout() const { return layout_; }
  /// Of the form of saved states and of the words of layout(). States of another version are refused.
  std::uint32_t state_version() const { return version_; }
  std::uint64_t fingerprint() const { return fingerprint_; }
  std::int64_t num_items() const { return scorer_.num_items(); }
  std::int64_t width() const { return scorer_.width(); }
  /// From hidden rows to scores of all items.
  const ItemScorer& scorer() const { return scorer_; }

  /// Does it need the times of events? A model that does not passes them over.
  virtual bool reads_times() const = 0;

  virtual ModelState initial_state() const = 0;
  /// Takes an event, which was at `time`, in the unit of the data that the model was trained on. Throws IndexError for
  /// an item outside [0, num_items()), ValueError for a state of another model, or without a finite time where the
  /// model reads times.
  void append(ModelState& state, std::int32_t item, double time = kNoTime) const;
  /// The hidden row [width()] after the latest event: the last row that encode() gives for the events so far, as far as
  /// they fit the model's window; the model says what holds beyond. Throws ValueError for a state of another model, or
  /// without a latest event.
  void hidden(const ModelState& state, std::span<float> row) const;
  /// append() and hidden() in one.
  void step(ModelState& state, std::int32_t item, std::span<float> row, double time = kNoTime) const;

  /// Puts the events of `earlier` before those of `state`. Throws ValueError for a model whose states don't merge.
  void merge(ModelState& state, const ModelState& earlier) const;
  /// Takes an event of this item back. When it was the item of the latest event, there is no latest event until the
  /// next append(). Throws ValueError for a model whose events can't be taken back, or when the state shows that there
  /// was no such event. A tally shows it when a count is 0, and not always: take back only what was appended.
  void remove(ModelState& state, std::int32_t item) const;

  /// What state.save() wrote. Throws IoError for bytes that are cut off, damaged or of another version; ValueError for
  /// a state of another model.
  ModelState load_state(std::string_view bytes) const;

 protected:
  /// `weights`: hash of all weights. The fingerprint is of name, layout and weights.
  RecurrentModel(std::string name, std::string layout, std::uint32_t version, std::uint64_t weights, ItemScorer scorer);

  virtual void append_to(ModelState& state, std::int32_t item, double time) const = 0;
  virtual void hidden_of(const ModelState& state, std::span<float> row) const = 0;
  virtual void merge_into(ModelState& state, const ModelState& earlier) const = 0;
  virtual void remove_from(ModelState& state, std::int32_t item) const = 0;
  virtual ModelState read_state(ByteReader& bytes, std::int64_t events) const = 0;

 private:
  void check_state(const ModelState& state) const;
  void check_event(std::int32_t item, double time) const;
  void check_item(std::int32_t item) const;
  void check_row(std::span<float> row) const;

  std::string name_, layout_;
  std::uint32_t version_;
  std::uint64_t fingerprint_;
  ItemScorer scorer_;
};

/// A type as a RecurrentModel. It has
///
///     struct State { std::size_t heap_bytes() const; void save(std::string& to) const; ... };
///     static constexpr std::uint32_t kStateVersion;                 // raised when saved states change
///     std::string layout() const;                                   // options that decide what a state means, too
///     ItemScorer scorer() const;
///     State initial_state() const;
///     void append(State&, std::int64_t events, std::int32_t item) const;              // events before this one
///     void hidden(const State&, std::int64_t events, std::span<float> row) const;     // events so far, at least one
///     State load(ByteReader&, std::int64_t events) const;                             // checks what it reads
///
/// and, if it likes, `merge(State&, events, const State& earlier, earlier_events)`, `remove(State&, events, item)`, and
/// `append(State&, events, item, time)` in place of the above with `bool reads_times() const`, false where it is
/// missing. An append() that throws must leave the state as it was.
template <class R>
class RecurrentModelOf final : public RecurrentModel {
 public:
  RecurrentModelOf(std::string name, std::uint64_t weights, R recurrence)
      : RecurrentModel(std::move(name), recurrence.layout(), R::kStateVersion, weights, recurrence.scorer()),
        recurrence_(std::move(recurrence)) {}

  bool reads_times() const override {
    if constexpr (requires { recurrence_.reads_times(); }) {
      return recurrence_.reads_times();
    } else {
      return false;
    }
  }
  ModelState initial_state() const override { return make(recurrence_.initial_state(), 0); }

 private:
  using State = typename R::State;
  struct Content final : ModelState::Content {
    explicit Content(State kept) : state(std::move(kept)) {}
    std::unique_ptr<ModelState::Content> clone() const override { return std::make_unique<Content>(state); }
    std::size_t bytes() const override { return sizeof(*this) + state.heap_bytes(); }
    void save(std::string& to) const override { state.save(to); }
    std::uint32_t version() const override { return R::kStateVersion; }
    State state;
  };

  static State& of(ModelState& state) { return static_cast<Content&>(*state.content_).state; }
  static const State& of(const ModelState& state) { return static_cast<const Content&>(*state.content_).state; }
  ModelState make(State state, std::int64_t events) const {
    ModelState made;
    made.fingerprint_ = fingerprint();
    made.events_ = events;
    made.content_ = std::make_unique<Content>(std::move(state));
    return made;
  }

  void append_to(ModelState& state, std::int32_t item, double time) const override {
    if constexpr (requires { recurrence_.append(of(state), state.events(), item, time); }) {
      recurrence_.append(of(state), state.events(), item, time);
    } else {
      recurrence_.append(of(state), state.events(), item);
    }
  }
  void hidden_of(const ModelState& state, std::span<float> row) const override {
    recurrence_.hidden(of(state), state.events(), row);
  }
  void merge_into(ModelState& state, const ModelState& earlier) const override {
    if constexpr (requires { recurrence_.merge(of(state), state.events(), of(earlier), earlier.events()); }) {
      recurrence_.merge(of(state), state.events(), of(earlier), earlier.events());
    } else {
      fail<ValueError>(name(), "has states that do not merge: ", layout());
    }
  }
  void remove_from(ModelState& state, std::int32_t item) const override {
    if constexpr (requires { recurrence_.remove(of(state), state.events(), item); }) {
      recurrence_.remove(of(state), state.events(), item);
    } else {
      fail<ValueError>(name(), "has states from which no event can be taken back: ", layout());
    }
  }
  ModelState read_state(ByteReader& bytes, std::int64_t events) const override {
    return make(recurrence_.load(bytes, events), events);
  }

  R recurrence_;
};

}  // namespace tally::recsys
