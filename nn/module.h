#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tally/core/random.h"
#include "tally/nn/fields.h"
#include "tally/nn/parameter.h"

// A module is a plain aggregate that lists its members:
//
//   struct Linear {
//     Parameter weight, bias;
//     static constexpr void fields(auto& self, auto&& visit) { visit("weight", self.weight); visit("bias", self.bias);
//     }
//   };
//
// Everything else (paths, saving, counting, freezing, conversion) walks that list. It has every member, plain values
// too, which walkers skip: a list that forgets one, visits one twice or under a condition does not compile
// (nn/fields.h). So a module has no base class, no constructor, no private data and no C array.

namespace tally::nn {

namespace detail {
struct IgnoreField {
  void operator()(std::string_view, auto&) const {}
};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
}  // namespace detail

/// How a module that hides its type shows what it has: every Parameter and Buffer, with its path, to these.
template <bool kConst>
struct FieldVisitor {
  template <class T>
  using Field = std::conditional_t<kConst, const T, T>;
  std::function<void(const std::string& path, Field<Parameter>&)> parameter;
  std::function<void(const std::string& path, Field<Buffer>&)> buffer;
};

/// A module that hides its type, such as nn::Attention: walkers enter it.
template <class M>
concept ErasedModule = requires(const M& module, const FieldVisitor<true>& visitor) {
  module.enter(std::string(), visitor);
};

template <class M>
concept Module = requires(std::remove_const_t<M>& module) {
  std::remove_const_t<M>::fields(module, detail::IgnoreField{});
};

/// Calls visit(path, field) for every Parameter and Buffer below `field`, depth first in the order of the lists.
template <class Field, class Visit>
void walk(const std::string& path, Field& field, Visit&& visit) {
  using Plain = std::remove_const_t<Field>;
  const auto below = [&](std::string_view name) {
    return path.empty() ? std::string(name) : path + '.' + std::string(name);
  };
  if constexpr (std::is_same_v<Plain, Parameter> || std::is_same_v<Plain, Buffer>) {
    if (field.defined()) visit(path, field);
  } else if constexpr (ErasedModule<Plain>) {
    const auto pass = [&](const std::string& at, auto& found) { visit(at, found); };
    field.enter(path, FieldVisitor<std::is_const_v<Field>>{pass, pass});
  } else if constexpr (Module<Plain>) {
    detail::check_fields<Plain>();
    Plain::fields(field, [&](std::string_view name, auto& member) { walk(below(name), member, visit); });
  } else if constexpr (detail::IsVector<Plain>::value) {
    for (std::size_t i = 0; i < field.size(); ++i) walk(below(std::to_string(i)), field[i], visit);
  } else if constexpr (detail::IsOptional<Plain>::value) {
    if (field) walk(path, *field, visit);
  } else {
    // A plain value. Anything that could own parameters is not trivially copyable, and must be a module.
    static_assert(
        std::is_trivially_copyable_v<Plain> || std::is_same_v<Plain, std::string>,
        "a module's field must be a parameter, a buffer, a module (or one that hides its type, or a vector or "
        "optional of them), or plain data");
  }
}

/// A parameter and where it stands in its module, e.g. `blocks.0.attention.query.weight`.
struct NamedParameter {
  std::string path;
  Parameter* parameter;
};
using ParameterList = std::vector<NamedParameter>;

/// Every parameter by path, in a fixed order. Valid while the module lives and is not moved.
template <Module M>
ParameterList parameters(M& module) {
  ParameterList list;
  walk("", module, [&](const std::string& path, auto& field) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, Parameter>) list.push_back({path, &field});
  });
  return list;
}

/// A tensor of a module (parameter or buffer) by path.
struct NamedTensor {
  std::string path;
  Tensor* tensor;
};
using TensorList = std::vector<NamedTensor>;

/// Every parameter and buffer: what saving and loading mean by the module's state.
template <Module M>
TensorList state(M& module) {
  TensorList list;
  walk("", module, [&](const std::string& path, auto& field) { list.push_back({path, &field.mutable_value()}); });
  return list;
}

template <Module M>
std::int64_t count_parameters(const M& module) {
  std::int64_t count = 0;
  walk("", module, [&](const std::string&, auto& field) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(field)>, Parameter>) count += field.value().numel();
  });
  return count;
}

/// True when `path` is `pattern`, where `*` stands for any run of characters.
bool matches(std::string_view pattern, std::string_view path);

/// Freezes (or thaws) the parameters whose path matches; returns how many did.
template <Module M>
int freeze(M& module, std::string_view pattern, bool frozen = true) {
  int count = 0;
  for (auto& [path, parameter] : parameters(module)) {
    if (!matches(pattern, path)) continue;
    parameter->freeze(frozen);
    ++count;
  }
  return count;
}

/// Converts every floating parameter and buffer (to f64 for gradient checking).
template <Module M>
void convert(M& module, DType dtype) {
  for (auto& [path, tensor] : state(module)) {
    if (is_floating(tensor->dtype())) *tensor = tensor->to(dtype);
  }
}

struct BufferUpdates;

/// What a forward pass needs beside its inputs. There is no global train or eval flag.
struct Context {
  bool training = false;
  RngKey key = {};             ///< of this step; layers fold in where they stand
  std::int64_t first_row = 0;  ///< of this shard's rows within the batch, so that dropout does not depend on sharding
  /// Receives changes to buffers (nn/buffer_updates.h), which the trainer applies in shard order; null discards them.
  BufferUpdates* updates = nullptr;

  /// The context of a part of the module.
  Context at(std::string_view name) const { return {training, key.fold_in(name), first_row, updates}; }
  Context at(std::size_t index) const {
    return {training, key.fold_in(static_cast<std::uint64_t>(index)), first_row, updates};
  }
};

}  // namespace tally::nn
