#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/random.h"

namespace tally::ops {

/// The value of an option: a variant, but one whose copy may run out of memory. GCC 12's own destroys the half-made
/// value then, so the value is copied by itself and moved in.
struct OptionValue : std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>> {
  using variant::variant;
  OptionValue(const OptionValue& other)
      : variant(std::visit([](auto copy) { return variant(std::move(copy)); }, static_cast<const variant&>(other))) {}
  OptionValue(OptionValue&&) noexcept = default;
  OptionValue& operator=(const OptionValue& other) { return *this = OptionValue(other); }
  OptionValue& operator=(OptionValue&&) noexcept = default;
  ~OptionValue() = default;
};

/// Options of a catalog call by name. Getters throw ConfigError when the value has another type (an integer is accepted
/// as a number) and return `otherwise` when it is absent.
class OpOptions {
 public:
  OpOptions() = default;
  OpOptions(std::initializer_list<std::pair<const std::string, OptionValue>> values) : values_(values) {}

  void set(const std::string& name, OptionValue value) { values_[name] = std::move(value); }
  bool contains(const std::string& name) const { return values_.contains(name); }
  const std::map<std::string, OptionValue>& values() const { return values_; }

  bool flag(const std::string& name, bool otherwise) const { return get(name, otherwise, "true or false"); }
  std::int64_t integer(const std::string& name, std::int64_t otherwise) const {
    return get(name, otherwise, "an integer");
  }
  /// An integer that names a dimension. Throws ConfigError for one that no int holds.
  int dimension(const std::string& name, int otherwise) const {
    const std::int64_t value = integer(name, otherwise);
    check<ConfigError>(std::in_range<int>(value), "option", "'", name, "' needs a dimension; got ", value);
    return static_cast<int>(value);
  }
  std::string text(const std::string& name, const std::string& otherwise) const {
    return get(name, otherwise, "a string");
  }
  std::vector<std::int64_t> integers(const std::string& name, const std::vector<std::int64_t>& otherwise) const {
    return get(name, otherwise, "a list of integers");
  }
  double number(const std::string& name, double otherwise) const {
    const auto found = values_.find(name);
    if (found != values_.end()) {
      if (const auto* whole = std::get_if<std::int64_t>(&found->second)) return static_cast<double>(*whole);
    }
    return get(name, otherwise, "a number");
  }
  /// The options `seed` and `stream` as a key.
  RngKey key() const {
    return {static_cast<std::uint64_t>(integer("seed", 0)), static_cast<std::uint64_t>(integer("stream", 0))};
  }

 private:
  template <class T>
  T get(const std::string& name, const T& otherwise, const char* kind) const {
    const auto found = values_.find(name);
    if (found == values_.end()) return otherwise;
    const T* value = std::get_if<T>(&found->second);
    check<ConfigError>(value != nullptr, "option", "'", name, "' needs ", kind);
    return *value;
  }

  std::map<std::string, OptionValue> values_;
};

}  // namespace tally::ops
