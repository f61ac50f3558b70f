#pragma once

#include <memory>
#include <string>
#include <typeinfo>
#include <utility>

#include "tally/nn/attention/kind.h"
#include "tally/nn/held_module.h"

namespace tally::nn {

/// What a recurrent attention remembers of one sequence, whatever its kind. A plain value: copy it, save it, roll back
/// to a copy.
class AttentionState {
 public:
  /// Of no attention.
  AttentionState() = default;
  AttentionState(const AttentionState& other) : content_(other.content_ ? other.content_->clone() : nullptr) {}
  AttentionState& operator=(const AttentionState& other) { return *this = AttentionState(other); }
  AttentionState(AttentionState&&) noexcept = default;
  AttentionState& operator=(AttentionState&&) noexcept = default;

  /// Memory on the heap. What all states of an attention share is not counted.
  std::size_t heap_bytes() const { return content_ ? content_->bytes() : 0; }
  /// Appends what it holds, without a frame: whoever holds it keeps version, number of events and a check.
  void save(std::string& to) const { content_->save(to); }
  /// Into a copy of the attention's initial state: what was saved after so many events. Throws IoError.
  void load(ByteReader& bytes, std::int64_t events) { content_->load(bytes, events); }

 private:
  friend class Attention;
  struct Content {
    virtual ~Content() = default;
    virtual std::unique_ptr<Content> clone() const = 0;
    virtual std::size_t bytes() const = 0;
    virtual void save(std::string& to) const = 0;
    virtual void load(ByteReader& bytes, std::int64_t events) = 0;
  };
  template <class State>
  struct ContentOf final : Content {
    explicit ContentOf(State kept) : state(std::move(kept)) {}
    std::unique_ptr<Content> clone() const override { return std::make_unique<ContentOf>(state); }
    std::size_t bytes() const override { return sizeof(*this) + state.heap_bytes(); }
    void save(std::string& to) const override { state.save(to); }
    void load(ByteReader& bytes, std::int64_t events) override { state.load(bytes, events); }
    State state;
  };

  std::unique_ptr<Content> content_;
};

/// An attention of any kind, of the tree or from outside: what layers hold. Walkers enter it (nn/module.h). A value, as
/// modules are: copying copies its parameters, moving keeps their identities.
class Attention {
 public:
  /// None: every call throws ValueError.
  Attention() = default;
  template <AttentionKind K>
  Attention(std::string name, K kind) : kind_(std::make_unique<KindOf<K>>(std::move(kind))), name_(std::move(name)) {}

  /// That it was made by.
  const std::string& name() const { return name_; }
  /// Name and settings in words.
  std::string layout() const { return name_ + kind().layout(); }

  /// [T, width] for queries and source [T, width], which are the same or two forms of the same rows.
  Var operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const {
    return kind().call(queries, source, sequence, context);
  }

  /// Does it need the times of events?
  bool reads_times() const { return kind().reads_times(); }

  /// Is there a recurrent form? What follows throws ValueError without one.
  bool has_state() const { return kind().has_state(); }
  /// Of a sequence without rows. What a step reads of the parameters may be made here, once, for all copies.
  AttentionState initial_state() const { return kind().initial_state(); }
  /// Takes an event and gives its row [1, width], as the call above gives it; query and source f32 [1, width]. A step
  /// that throws may leave the state changed.
  Var step(AttentionState& state, const Var& query, const Var& source, const Event& event) const {
    return kind().step(state, query, source, event);
  }

  /// The kind, if it is this one.
  template <AttentionKind K>
  const K* as() const {
    return kind_.template as<KindOf<K>>();
  }

  void enter(const std::string& path, const FieldVisitor<false>& visitor) { kind_.enter(path, visitor); }
  void enter(const std::string& path, const FieldVisitor<true>& visitor) const { kind_.enter(path, visitor); }

 private:
  struct Kind : HeldModule<Kind> {
    virtual std::string layout() const = 0;
    virtual Var call(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const = 0;
    virtual bool reads_times() const = 0;
    virtual bool has_state() const = 0;
    virtual AttentionState initial_state() const = 0;
    virtual Var step(AttentionState& state, const Var& query, const Var& source, const Event& event) const = 0;
  };

  template <class K>
  struct KindOf final : HeldModuleOf<Kind, KindOf<K>, K> {
    using HeldModuleOf<Kind, KindOf<K>, K>::HeldModuleOf;
    using HeldModuleOf<Kind, KindOf<K>, K>::module;
    std::string layout() const override { return module.layout(); }
    Var call(const Var& queries, const Var& source, const Sequence& sequence, const Context& context) const override {
      return module(queries, source, sequence, context);
    }
    bool reads_times() const override {
      if constexpr (requires { module.reads_times(); }) {
        return module.reads_times();
      } else {
        return false;
      }
    }
    bool has_state() const override {
      if constexpr (requires { module.has_state(); }) {
        return module.has_state();
      } else {
        return RecurrentAttentionKind<K>;
      }
    }
    AttentionState initial_state() const override {
      AttentionState made;
      if constexpr (RecurrentAttentionKind<K>) {
        check_state();
        made.content_ = std::make_unique<AttentionState::ContentOf<typename K::State>>(module.initial_state());
      } else {
        check_state();
      }
      return made;
    }
    Var step(AttentionState& state, const Var& query, const Var& source, const Event& event) const override {
      if constexpr (RecurrentAttentionKind<K>) {
        auto* const held = dynamic_cast<AttentionState::ContentOf<typename K::State>*>(state.content_.get());
        check<ValueError>(held != nullptr, "Attention", "needs a state that its initial_state() made");
        return module.step(held->state, query, source, event);
      } else {
        check_state();
        return {};
      }
    }
    void check_state() const {
      check<ValueError>(has_state(), "Attention",
                        "of this kind has no state of a fixed size: it reads whole sequences");
    }
  };

  const Kind& kind() const {
    check<ValueError>(static_cast<bool>(kind_), "Attention", "has no kind: it was default-constructed or moved from");
    return *kind_;
  }

  Held<Kind> kind_;
  std::string name_;
};

}  // namespace tally::nn
