#include "tally/core/io/json.h"

#include <array>
#include <cmath>
#include <limits>

namespace tally {
namespace {

constexpr std::int64_t kExactInDouble = std::int64_t{1} << 53;

[[noreturn]] void fail_kind(std::string_view where, std::string_view needed, const Json& value) {
  constexpr std::size_t kShown = 40;
  std::string text = value.size() > kShown ? "..." : value.dump();
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  fail<ValueError>(where, "needs ", needed, "; got ", name_of(value.kind()), " ", text);
}

}  // namespace

std::string_view name_of(Json::Kind kind) {
  constexpr std::array<std::string_view, 7> kNames = {"null",   "boolean", "integer", "number",
                                                      "string", "array",   "object"};
  return kNames[static_cast<std::size_t>(kind)];
}

Json::Json() = default;
Json::Json(std::nullptr_t) {}
Json::Json(const char* value) : value_(std::string(value)) {}
Json::Json(std::string value) : value_(std::move(value)) {}
Json::Json(std::string_view value) : value_(std::string(value)) {}
Json::Json(const Json& other) : depth_(other.depth_) {
  // A copy that throws must not throw within the variant: GCC 12's destroys the half-made one then.
  std::visit(
      [this](const auto& value) {
        auto copy = value;
        value_ = std::move(copy);
      },
      other.value_);
}
Json& Json::operator=(const Json& other) { return *this = Json(other); }
Json::~Json() = default;

// A value that was moved from is null, not an empty container that remembers its depth.
Json::Json(Json&& other) noexcept : value_(std::move(other.value_)), depth_(std::exchange(other.depth_, 0)) {
  other.value_ = std::monostate{};
}

Json& Json::operator=(Json&& other) noexcept {
  if (this == &other) return *this;
  value_ = std::move(other.value_);
  depth_ = std::exchange(other.depth_, 0);
  other.value_ = std::monostate{};
  return *this;
}

Json Json::array(std::initializer_list<Json> elements) {
  Json result;
  result.value_ = std::vector<Json>();
  result.depth_ = 1;
  for (const Json& element : elements) result.push_back(element);
  return result;
}

Json Json::object(std::initializer_list<std::pair<std::string_view, Json>> members) {
  Json result;
  result.value_ = std::vector<JsonMember>();
  result.depth_ = 1;
  for (const auto& [name, value] : members) result.set(name, value);
  return result;
}

void Json::set_integer_checked(std::uint64_t value) {
  check<ValueError>(std::in_range<std::int64_t>(value), "json", "needs an integer below 2^63; got ", value);
  value_ = static_cast<std::int64_t>(value);
}

bool Json::as_bool(std::string_view where) const {
  if (!is(Kind::boolean)) fail_kind(where, "true or false", *this);
  return std::get<bool>(value_);
}

std::int64_t Json::as_integer(std::string_view where) const {
  if (!is(Kind::integer)) fail_kind(where, "an integer", *this);
  return std::get<std::int64_t>(value_);
}

double Json::as_double(std::string_view where) const {
  if (is(Kind::number)) return std::get<double>(value_);
  if (is(Kind::integer)) {
    const std::int64_t value = std::get<std::int64_t>(value_);
    check<ValueError>(-kExactInDouble <= value && value <= kExactInDouble, where,
                      "needs a number that a double holds exactly; got ", value);
    return static_cast<double>(value);
  }
  if (is(Kind::string)) {
    const std::string& text = std::get<std::string>(value_);
    if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
    if (text == "Infinity") return std::numeric_limits<double>::infinity();
    if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  }
  fail_kind(where, "a number", *this);
}

const std::string& Json::as_string(std::string_view where) const {
  if (!is(Kind::string)) fail_kind(where, "a string", *this);
  return std::get<std::string>(value_);
}

const std::vector<Json>& Json::elements(std::string_view where) const {
  if (!is(Kind::array)) fail_kind(where, "an array", *this);
  return std::get<std::vector<Json>>(value_);
}

const std::vector<JsonMember>& Json::members(std::string_view where) const {
  if (!is(Kind::object)) fail_kind(where, "an object", *this);
  return std::get<std::vector<JsonMember>>(value_);
}

std::size_t Json::size() const {
  if (is(Kind::array)) return std::get<std::vector<Json>>(value_).size();
  if (is(Kind::object)) return std::get<std::vector<JsonMember>>(value_).size();
  return 0;
}

const Json* Json::find(std::string_view name) const {
  if (!is(Kind::object)) return nullptr;
  for (const JsonMember& member : std::get<std::vector<JsonMember>>(value_)) {
    if (member.name == name) return &member.value;
  }
  return nullptr;
}

const Json& Json::at(std::string_view name) const {
  members();
  const Json* found = find(name);
  check<IndexError>(found != nullptr, "json", "needs a member \"", name, "\", which is missing");
  return *found;
}

const Json& Json::at(std::size_t index) const {
  const auto& all = elements();
  check<IndexError>(index < all.size(), "json", "needs an element ", index, "; got an array of ", all.size());
  return all[index];
}

void Json::enclose(const Json& child) {
  check<ValueError>(child.depth_ < kMaxDepth, "json", "needs nesting of at most ", kMaxDepth, " levels");
  depth_ = std::max(depth_, child.depth_ + 1);
}

void Json::set(std::string_view name, Json value) {
  if (is(Kind::null)) *this = object();
  if (!is(Kind::object)) fail_kind("json", "an object to set a member of", *this);
  enclose(value);
  auto& all = std::get<std::vector<JsonMember>>(value_);
  for (JsonMember& member : all) {
    if (member.name == name) {
      member.value = std::move(value);
      return;
    }
  }
  all.push_back({std::string(name), std::move(value)});
}

void Json::set_at(std::string_view dotted_path, Json value) {
  const std::size_t dot = dotted_path.find('.');
  const std::string_view name = dotted_path.substr(0, dot);
  check<ValueError>(!name.empty(), "json", "needs a path of names with dots between; got an empty name");
  if (dot == std::string_view::npos) return set(name, std::move(value));
  const Json* nested = find(name);
  Json replaced = nested == nullptr ? object() : *nested;
  replaced.set_at(dotted_path.substr(dot + 1), std::move(value));
  set(name, std::move(replaced));
}

void Json::push_back(Json value) {
  if (is(Kind::null)) *this = array();
  if (!is(Kind::array)) fail_kind("json", "an array to append to", *this);
  enclose(value);
  std::get<std::vector<Json>>(value_).push_back(std::move(value));
}

bool operator==(const Json& a, const Json& b) { return a.value_ == b.value_; }

float detail::narrow_to_float(double value, std::string_view where) {
  check<ValueError>(!std::isfinite(value) || std::abs(value) <= std::numeric_limits<float>::max(), where,
                    "needs a number within the range of 32-bit floats; got ", value);
  return static_cast<float>(value);
}

}  // namespace tally
