#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tally/autograd/var.h"
#include "tally/nn/module.h"
#include "tally/recsys/models/batch_items.h"

// What a model computes once for a step, or once for an evaluation, is a struct of its own that lists its members as
// modules do (nn/module.h):
//
//   struct Prepared {
//     BatchItems items;
//     Var table;                          // [items, width]
//     Tensor codes;                       // never differentiated
//     std::optional<Var> positions;       // absent in some settings
//     static constexpr void fields(auto& self, auto&& visit) { visit("items", self.items); ... }
//   };
//
// From that list a training step takes the values that gradients flow back through, and puts the shards' own in their
// place.

namespace tally::recsys {

/// Calls visit(var) for every Var below `field` that is there, depth first in the order of the lists. Tensors, items
/// and plain values are constants: they stay where they are.
template <class Field, class Visit>
void walk_vars(Field& field, Visit&& visit) {
  using Plain = std::remove_const_t<Field>;
  if constexpr (std::is_same_v<Plain, Var>) {
    if (field.defined()) visit(field);
  } else if constexpr (nn::Module<Plain>) {
    nn::detail::check_fields<Plain>();
    Plain::fields(field, [&](std::string_view, auto& member) { walk_vars(member, visit); });
  } else if constexpr (nn::detail::IsVector<Plain>::value) {
    for (auto& each : field) walk_vars(each, visit);
  } else if constexpr (nn::detail::IsOptional<Plain>::value) {
    if (field) walk_vars(*field, visit);
  } else {
    static_assert(
        std::is_same_v<Plain, Tensor> || std::is_same_v<Plain, BatchItems> || std::is_trivially_copyable_v<Plain> ||
            std::is_same_v<Plain, std::string>,
        "a prepared field must be a Var, a Tensor, items, plain data, or a struct that lists such fields (or a "
        "vector or optional of them)");
  }
}

/// A model's prepared struct, whatever its type: how the trainer and the evaluation hold it. A value; copies share.
class Prepared {
 public:
  /// Of a model that prepares nothing.
  Prepared() = default;
  template <nn::Module Values>
  explicit Prepared(Values values) : content_(std::make_shared<const ContentOf<Values>>(std::move(values))) {}

  /// Throws ValueError when something else was prepared.
  template <class Values>
  const Values& as() const {
    const auto* const content = dynamic_cast<const ContentOf<Values>*>(content_.get());
    check<ValueError>(content != nullptr, "Prepared", "needs what this model's prepare() returned; got ",
                      content_ == nullptr ? "nothing" : "that of another");
    return content->values;
  }

  /// All Vars in a fixed order.
  std::vector<Var> vars() const { return content_ == nullptr ? std::vector<Var>() : content_->vars(); }
  /// The same struct with others in their place. Throws ValueError for another number of them.
  Prepared with(std::span<const Var> vars) const {
    return content_ == nullptr ? Prepared() : Prepared(content_->with(vars));
  }

 private:
  struct Content {
    virtual ~Content() = default;
    virtual std::vector<Var> vars() const = 0;
    virtual std::shared_ptr<const Content> with(std::span<const Var> vars) const = 0;
  };
  template <class Values>
  struct ContentOf final : Content {
    explicit ContentOf(Values kept) : values(std::move(kept)) {}
    std::vector<Var> vars() const override {
      std::vector<Var> all;
      walk_vars(values, [&](const Var& var) { all.push_back(var); });
      return all;
    }
    std::shared_ptr<const Content> with(std::span<const Var> vars) const override {
      auto changed = std::make_shared<ContentOf>(values);
      std::size_t used = 0;
      walk_vars(changed->values, [&](Var& var) {
        if (used < vars.size()) var = vars[used];
        ++used;
      });
      check<ValueError>(used == vars.size(), "Prepared", "needs ", used, " values; got ", vars.size());
      return changed;
    }
    Values values;
  };

  explicit Prepared(std::shared_ptr<const Content> content) : content_(std::move(content)) {}

  std::shared_ptr<const Content> content_;
};

}  // namespace tally::recsys
