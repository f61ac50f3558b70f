#pragma once

#include <memory>
#include <string>
#include <utility>

#include "tally/nn/readers/kind.h"

namespace tally::nn {

/// A reader of any kind, of the tree or from outside: what models hold. Walkers enter it (nn/module.h). A value, as
/// modules are: copying copies its parameters, moving keeps their identities.
class Reader {
 public:
  /// None: a call throws ValueError.
  Reader() = default;
  template <ReaderKind K>
  Reader(std::string name, std::int64_t width, K kind)
      : kind_(std::make_unique<KindOf<K>>(std::move(kind))), name_(std::move(name)), width_(width) {}
  Reader(const Reader& other)
      : kind_(other.kind_ ? other.kind_->clone() : nullptr), name_(other.name_), width_(other.width_) {}
  Reader& operator=(const Reader& other) { return *this = Reader(other); }
  Reader(Reader&&) noexcept = default;
  Reader& operator=(Reader&&) noexcept = default;

  /// That it was made by.
  const std::string& name() const { return name_; }
  std::int64_t width() const { return width_; }

  /// Answers [M, width] of queries [M, width] to documents' rows [T, width]. Throws as check_lookups() does.
  Var operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const {
    check<ValueError>(kind_ != nullptr, "Reader", "has no kind: it was default-constructed or moved from");
    check_lookups(rows, queries, lookups, width_);
    return kind_->call(rows, queries, lookups, context);
  }

  /// The kind, if it is this one.
  template <ReaderKind K>
  const K* as() const {
    const auto* const held = dynamic_cast<const KindOf<K>*>(kind_.get());
    return held == nullptr ? nullptr : &held->module;
  }

  void enter(const std::string& path, const FieldVisitor<false>& visitor) {
    if (kind_) kind_->enter(path, visitor);
  }
  void enter(const std::string& path, const FieldVisitor<true>& visitor) const {
    if (kind_) std::as_const(*kind_).enter(path, visitor);
  }

 private:
  struct Kind {
    virtual ~Kind() = default;
    virtual std::unique_ptr<Kind> clone() const = 0;
    virtual Var call(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const = 0;
    virtual void enter(const std::string& path, const FieldVisitor<false>& visitor) = 0;
    virtual void enter(const std::string& path, const FieldVisitor<true>& visitor) const = 0;
  };

  template <class K>
  struct KindOf final : Kind {
    explicit KindOf(K kept) : module(std::move(kept)) {}
    std::unique_ptr<Kind> clone() const override { return std::make_unique<KindOf>(module); }
    Var call(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const override {
      return module(rows, queries, lookups, context);
    }
    void enter(const std::string& path, const FieldVisitor<false>& visitor) override {
      enter_module(module, path, visitor);
    }
    void enter(const std::string& path, const FieldVisitor<true>& visitor) const override {
      enter_module(module, path, visitor);
    }
    static void enter_module(auto& field, const std::string& path, const auto& visitor) {
      walk(path, field, [&](const std::string& at, auto& found) {
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype(found)>, Parameter>) {
          visitor.parameter(at, found);
        } else {
          visitor.buffer(at, found);
        }
      });
    }
    K module;
  };

  std::unique_ptr<Kind> kind_;
  std::string name_;
  std::int64_t width_ = 0;
};

}  // namespace tally::nn
