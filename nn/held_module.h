#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "tally/nn/module.h"

// What types that hide a module's type are made of, such as nn::Attention: an interface over modules, and a value that
// holds one of them.
//
//   struct Kind : HeldModule<Kind> { virtual Var call(...) const = 0; };
//   template <class K>
//   struct KindOf final : HeldModuleOf<Kind, KindOf<K>, K> {
//     using HeldModuleOf<Kind, KindOf<K>, K>::HeldModuleOf;
//     Var call(...) const override { return this->module(...); }
//   };
//   Held<Kind> kind;

namespace tally::nn {

/// The base of an interface over modules.
template <class Interface>
struct HeldModule {
  virtual ~HeldModule() = default;
  virtual std::unique_ptr<Interface> clone() const = 0;
  virtual void enter(const std::string& path, const FieldVisitor<false>& visitor) = 0;
  virtual void enter(const std::string& path, const FieldVisitor<true>& visitor) const = 0;
};

/// An interface's class for modules of type M; `Derived` completes it.
template <class Interface, class Derived, class M>
struct HeldModuleOf : Interface {
  explicit HeldModuleOf(M kept) : module(std::move(kept)) {}
  std::unique_ptr<Interface> clone() const override { return std::make_unique<Derived>(module); }
  void enter(const std::string& path, const FieldVisitor<false>& visitor) override { walk_all(module, path, visitor); }
  void enter(const std::string& path, const FieldVisitor<true>& visitor) const override {
    walk_all(module, path, visitor);
  }

  M module;

 private:
  static void walk_all(auto& field, const std::string& path, const auto& visitor) {
    walk(path, field, [&](const std::string& at, auto& found) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(found)>, Parameter>) {
        visitor.parameter(at, found);
      } else {
        visitor.buffer(at, found);
      }
    });
  }
};

/// A module behind its interface, or none. A value, as modules are: copying copies parameters, moving keeps their
/// identities.
template <class Interface>
class Held {
 public:
  Held() = default;
  explicit Held(std::unique_ptr<Interface> module) : module_(std::move(module)) {}
  Held(const Held& other) : module_(other.module_ ? other.module_->clone() : nullptr) {}
  Held& operator=(const Held& other) { return *this = Held(other); }
  Held(Held&&) noexcept = default;
  Held& operator=(Held&&) noexcept = default;

  explicit operator bool() const { return module_ != nullptr; }
  const Interface& operator*() const { return *module_; }
  const Interface* operator->() const { return module_.get(); }

  /// The module, if it is of the class `Of`.
  template <class Of>
  auto as() const -> decltype(&std::declval<const Of&>().module) {
    const auto* const held = dynamic_cast<const Of*>(module_.get());
    return held == nullptr ? nullptr : &held->module;
  }

  void enter(const std::string& path, const FieldVisitor<false>& visitor) {
    if (module_) module_->enter(path, visitor);
  }
  void enter(const std::string& path, const FieldVisitor<true>& visitor) const {
    if (module_) std::as_const(*module_).enter(path, visitor);
  }

 private:
  std::unique_ptr<Interface> module_;
};

}  // namespace tally::nn
