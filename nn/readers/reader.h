#pragma once

#include <memory>
#include <string>
#include <utility>

#include "tally/nn/held_module.h"
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

  /// That it was made by.
  const std::string& name() const { return name_; }
  std::int64_t width() const { return width_; }

  /// Answers [M, width] of queries [M, width] to documents' rows [T, width]. Throws as check_lookups() does.
  Var operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const {
    check<ValueError>(static_cast<bool>(kind_), "Reader", "has no kind: it was default-constructed or moved from");
    check_lookups(rows, queries, lookups, width_);
    return kind_->call(rows, queries, lookups, context);
  }

  /// The kind, if it is this one.
  template <ReaderKind K>
  const K* as() const {
    return kind_.template as<KindOf<K>>();
  }

  void enter(const std::string& path, const FieldVisitor<false>& visitor) { kind_.enter(path, visitor); }
  void enter(const std::string& path, const FieldVisitor<true>& visitor) const { kind_.enter(path, visitor); }

 private:
  struct Kind : HeldModule<Kind> {
    virtual Var call(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const = 0;
  };

  template <class K>
  struct KindOf final : HeldModuleOf<Kind, KindOf<K>, K> {
    using HeldModuleOf<Kind, KindOf<K>, K>::HeldModuleOf;
    Var call(const Var& rows, const Var& queries, const Lookups& lookups, const Context& context) const override {
      return this->module(rows, queries, lookups, context);
    }
  };

  Held<Kind> kind_;
  std::string name_;
  std::int64_t width_ = 0;
};

}  // namespace tally::nn
