#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tally/core/error.h"

namespace tally {

struct JsonMember;

/// A JSON value. Integers and other numbers are kept apart, objects keep the order in which members were added, and no
/// value nests deeper than kMaxDepth: copying, writing and destroying one can't exhaust the stack.
///
/// Getters refuse lossy conversion with a ValueError: 3.9 or true as an integer, -1 as an unsigned one, 2^53 + 1 as a
/// double. JSON has no NaN and infinities; they are written as the strings "NaN", "Infinity" and "-Infinity", which
/// as_double() reads back.
class Json {
 public:
  enum class Kind : std::uint8_t { null, boolean, integer, number, string, array, object };
  static constexpr int kMaxDepth = 64;

  Json();
  Json(std::nullptr_t);
  /// Throws ValueError for an unsigned value beyond 2^63 - 1.
  template <class T>
  requires std::is_arithmetic_v<T> Json(T value);
  Json(const char* value);
  Json(std::string value);
  Json(std::string_view value);
  template <class T>
  Json(const std::vector<T>& values);
  Json(const Json& other);
  Json(Json&& other) noexcept;
  Json& operator=(const Json& other);
  Json& operator=(Json&& other) noexcept;
  ~Json();

  static Json array(std::initializer_list<Json> elements = {});
  /// `Json::object({{"epochs", 3}, {"rate", 0.1}})`.
  static Json object(std::initializer_list<std::pair<std::string_view, Json>> members = {});

  Kind kind() const { return static_cast<Kind>(value_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }

  bool as_bool(std::string_view where = "json") const;
  std::int64_t as_integer(std::string_view where = "json") const;
  double as_double(std::string_view where = "json") const;
  const std::string& as_string(std::string_view where = "json") const;
  /// bool, any integer or floating type, std::string, std::vector and std::optional (null) of these, or Json itself.
  /// `where` begins the error message.
  template <class T>
  T as(const std::string& where = "json") const;

  /// Elements of an array, members of an object. Throw ValueError for another kind.
  const std::vector<Json>& elements(std::string_view where = "json") const;
  const std::vector<JsonMember>& members(std::string_view where = "json") const;
  /// Number of elements or members.
  std::size_t size() const;
  /// Null when absent, or when this is no object. Looks at one member after the other.
  const Json* find(std::string_view name) const;
  /// Throw IndexError naming what is missing.
  const Json& at(std::string_view name) const;
  const Json& at(std::size_t index) const;

  /// Adds a member or replaces the one of this name. A null value becomes an object first.
  /// Throws ValueError for other kinds, and when the result would be too deep.
  void set(std::string_view name, Json value);
  /// set() through nested objects, which are created as needed: "train.adam.rate".
  void set_at(std::string_view dotted_path, Json value);
  /// Appends an element. A null value becomes an array first.
  void push_back(Json value);

  /// JSON text. `indent` < 0: one line without spaces; otherwise lines indented by that many spaces a level. Numbers
  /// are the shortest text that reads back to the same bits. Bytes that are not UTF-8 become U+FFFD.
  std::string dump(int indent = -1) const;

  /// Same kind, same values; members in the same order. Numbers by value, so NaN differs from NaN.
  friend bool operator==(const Json& a, const Json& b);

 private:
  friend class JsonBuilder;

  void set_integer_checked(std::uint64_t value);
  void enclose(const Json& child);
  void write(std::string& out, int indent, int level) const;

  std::variant<std::monostate, bool, std::int64_t, double, std::string, std::vector<Json>, std::vector<JsonMember>>
      value_;
  int depth_ = 0;  ///< 0 for a leaf; an array or object is one deeper than its deepest child was.
};

struct JsonMember {
  std::string name;
  Json value;

  friend bool operator==(const JsonMember& a, const JsonMember& b) { return a.name == b.name && a.value == b.value; }
};

std::string_view name_of(Json::Kind kind);

/// Bounds for text from outside.
struct JsonLimits {
  std::int64_t max_bytes = 16 << 20;
  std::int64_t max_values = 4 << 20;
};

/// Reads exactly one JSON value. Refuses, with an IoError naming `name`, line and column: nesting beyond 64, duplicate
/// keys, NUL, a byte order mark, bytes after the value, invalid UTF-8, integers beyond 64 signed bits, numbers beyond
/// double, and text beyond the limits.
Json parse_json(std::string_view text, const std::string& name = "json", const JsonLimits& limits = {});
/// parse_json of a regular file, which may begin with a byte order mark, as editors of Windows write it.
Json read_json(const std::filesystem::path& path, const JsonLimits& limits = {});

/// `text` as a JSON string with its quotes, appended to `out`. Bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);
/// The number of the first byte that is not part of valid UTF-8, or npos.
std::size_t find_invalid_utf8(std::string_view text);

namespace detail {

template <class T>
struct VectorElement;
template <class T>
struct VectorElement<std::vector<T>> {
  using type = T;
};
template <class T>
struct OptionalValue;
template <class T>
struct OptionalValue<std::optional<T>> {
  using type = T;
};
float narrow_to_float(double value, std::string_view where);

}  // namespace detail

template <class T>
requires std::is_arithmetic_v<T> Json::Json(T value) {
  if constexpr (std::same_as<T, bool>) {
    value_ = value;
  } else if constexpr (std::is_floating_point_v<T>) {
    value_ = static_cast<double>(value);
  } else if constexpr (std::is_signed_v<T>) {
    value_ = static_cast<std::int64_t>(value);
  } else {
    set_integer_checked(value);
  }
}

template <class T>
Json::Json(const std::vector<T>& values) {
  *this = array();
  for (const auto& value : values) push_back(Json(static_cast<T>(value)));
}

template <class T>
T Json::as(const std::string& where) const {
  if constexpr (std::same_as<T, Json>) {
    return *this;
  } else if constexpr (std::same_as<T, bool>) {
    return as_bool(where);
  } else if constexpr (std::same_as<T, std::string>) {
    return as_string(where);
  } else if constexpr (std::same_as<T, float>) {
    return detail::narrow_to_float(as_double(where), where);
  } else if constexpr (std::same_as<T, double>) {
    return as_double(where);
  } else if constexpr (std::integral<T>) {
    const std::int64_t value = as_integer(where);
    check<ValueError>(std::in_range<T>(value), where, "needs an integer of ", 8 * sizeof(T), " bits",
                      std::is_signed_v<T> ? "" : " that is not negative", "; got ", value);
    return static_cast<T>(value);
  } else if constexpr (requires { typename detail::OptionalValue<T>::type; }) {
    if (is(Kind::null)) return std::nullopt;
    return as<typename detail::OptionalValue<T>::type>(where);
  } else {
    T result;
    const std::vector<Json>& values = elements(where);
    for (std::size_t i = 0; i < values.size(); ++i) {
      result.push_back(values[i].as<typename detail::VectorElement<T>::type>(where + "[" + std::to_string(i) + "]"));
    }
    return result;
  }
}

}  // namespace tally
