// Text to Json: the one place where JSON from outside enters. nlohmann's SAX parser tokenizes without recursion;
// everything it would let through (deep nesting, duplicate keys, bytes after a NUL, a byte order mark, integers that
// turn into doubles) is refused here.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "tally/core/io/file.h"
#include "tally/core/io/json.h"
#include "tally/core/io/json_members.h"
#include "tally/core/io/line_reader.h"

namespace tally {
namespace {

/// Reads characters and shares how far it came: SAX events carry no position of their own.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  const char& operator*() const { return *at_; }
  CountingIterator& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    const CountingIterator before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const CountingIterator& a, const CountingIterator& b) { return a.at_ == b.at_; }
  friend bool operator!=(const CountingIterator& a, const CountingIterator& b) { return !(a == b); }

 private:
  const char* at_;
  const char** furthest_;
};

}  // namespace

/// SAX handler that builds a Json and throws at the first thing it refuses.
class JsonBuilder {
 public:
  using Source = nlohmann::json;

  using Take = std::function<void(JsonMember)>;

  /// With `take`, the members of the outermost object go there.
  JsonBuilder(std::string_view text, const std::string& name, const JsonLimits& limits, const Take* take = nullptr,
              std::int64_t max_member_values = 0)
      : text_(text),
        name_(name),
        limits_(limits),
        position_(text.data()),
        take_(take),
        max_member_values_(max_member_values) {}

  Json read() {
    check<IoError>(static_cast<std::int64_t>(text_.size()) <= limits_.max_bytes, name_, "needs at most ",
                   limits_.max_bytes, " bytes of JSON; got ", text_.size());
    if (text_.starts_with(kByteOrderMark)) fail_here("JSON must not begin with a byte order mark");
    if (const std::size_t nul = text_.find('\0'); nul != std::string_view::npos) {
      position_ = text_.data() + nul + 1;
      fail_here("JSON must not contain a NUL byte");
    }
    const CountingIterator begin(text_.data(), &position_), end(text_.data() + text_.size(), &position_);
    Source::sax_parse(begin, end, this);
    return std::move(root_);
  }

  bool null() { return add(Json()); }
  bool boolean(bool value) { return add(Json(value)); }
  bool number_integer(std::int64_t value) { return add(Json(value)); }
  bool number_unsigned(std::uint64_t value) {
    if (!std::in_range<std::int64_t>(value)) fail_here(std::to_string(value) + " does not fit into 64 signed bits");
    return add(Json(value));
  }
  /// `value` and `written` are what the parser made of the number in the C locale of the host, whose decimal point may
  /// be another: only the length of `written` is right.
  bool number_float(double value, const std::string& written) {
    const std::string_view text = number_before_position(written.size());
    // An integer too large for 64 bits arrives here, rounded.
    if (text.find_first_of(".eE") == std::string::npos)
      fail_here(std::string(text) + " does not fit into 64 signed bits");
    // Nothing is stored for what is too small, which the parser has as 0 or the least number there is.
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() && std::abs(value) >= 1) fail_here("number overflow parsing '" + std::string(text) + '\'');
    return add(Json(value));
  }
  bool string(std::string& value) {
    if (value.find('\0') != std::string::npos) fail_here("strings must not contain \\u0000");
    return add(Json(std::move(value)));
  }
  bool binary(Source::binary_t&) { return false; }

  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_array() { return close(); }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool end_object() { return close(); }

  bool key(std::string& name) {
    if (name.find('\0') != std::string::npos) fail_here("keys must not contain \\u0000");
    Level& level = levels_.back();
    level.key = name;
    if (levels_.size() == 1) member_begin_ = count_;
    if (!level.keys.insert(name).second) fail_here("duplicate key");
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
    const std::string_view message = error.what();
    std::size_t begin = message.find("syntax error");
    if (begin == std::string_view::npos) begin = std::min(message.find("] ") + 2, message.size());
    fail_here(message.substr(begin));
  }

 private:
  struct Level {
    Json value;
    std::string key;
    std::unordered_set<std::string> keys;
  };

  [[noreturn]] void fail_here(std::string_view what) const {
    const std::string_view before = text_.substr(0, static_cast<std::size_t>(position_ - text_.data()));
    // The position is that of the last character read, counted from 1 as editors do.
    const std::string_view read = before.empty() ? before : before.substr(0, before.size() - 1);
    const auto line = 1 + std::count(read.begin(), read.end(), '\n');
    const std::size_t newline = read.rfind('\n');
    const std::size_t column = read.size() - (newline == std::string_view::npos ? 0 : newline + 1) + 1;
    std::string path;
    for (const Level& level : levels_) {
      if (level.key.empty()) continue;
      path += path.empty() ? "" : ".";
      path += level.key.substr(0, 100);
    }
    fail<IoError>(detail::join(name_, ':', line, ':', column), what, path.empty() ? "" : " (at \"", path,
                  path.empty() ? "" : "\")");
  }

  /// The number that was just read: it ends in a digit, and the parser may have looked at the character behind it.
  std::string_view number_before_position(std::size_t size) const {
    const char last = position_[-1];
    const char* const end = position_ - (last >= '0' && last <= '9' ? 0 : 1);
    return {end - size, size};
  }

  void count_value() {
    if (++count_ > limits_.max_values) {
      fail_here(detail::join("JSON must hold at most ", limits_.max_values, " values"));
    }
    if (take_ != nullptr && count_ - member_begin_ > max_member_values_) {
      fail_here(detail::join("JSON must hold at most ", max_member_values_, " values in a member"));
    }
  }

  [[noreturn]] void refuse_root(const Json& root) const {
    fail<IoError>(name_, "needs a JSON object; got ", tally::name_of(root.kind()));
  }

  bool add(Json value) {
    count_value();
    if (take_ != nullptr && levels_.empty()) refuse_root(value);
    place(std::move(value));
    return true;
  }

  void place(Json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return;
    }
    if (take_ != nullptr && levels_.size() == 1) return (*take_)({levels_.back().key, std::move(value)});
    Json& parent = levels_.back().value;
    parent.enclose(value);
    if (auto* members = std::get_if<std::vector<JsonMember>>(&parent.value_)) {
      members->push_back({levels_.back().key, std::move(value)});
    } else {
      std::get<std::vector<Json>>(parent.value_).push_back(std::move(value));
    }
  }

  bool open(Json container) {
    count_value();
    if (take_ != nullptr && levels_.empty() && !container.is(Json::Kind::object)) refuse_root(container);
    if (levels_.size() == static_cast<std::size_t>(Json::kMaxDepth)) {
      fail_here(detail::join("JSON must not nest deeper than ", Json::kMaxDepth, " levels"));
    }
    levels_.push_back({std::move(container), {}, {}});
    return true;
  }

  bool close() {
    Json value = std::move(levels_.back().value);
    levels_.pop_back();
    place(std::move(value));
    return true;
  }

  std::string_view text_;
  const std::string& name_;
  const JsonLimits& limits_;
  const char* position_;
  std::vector<Level> levels_;
  Json root_;
  std::int64_t count_ = 0;
  const Take* take_;
  std::int64_t max_member_values_;
  std::int64_t member_begin_ = 0;  ///< values before the member of the outermost object
};

void parse_json_members(std::string_view text, const std::string& name, const JsonLimits& limits,
                        std::int64_t max_member_values, const std::function<void(JsonMember)>& take) {
  JsonBuilder(text, name, limits, &take, max_member_values).read();
}

Json parse_json(std::string_view text, const std::string& name, const JsonLimits& limits) {
  return JsonBuilder(text, name, limits).read();
}

Json read_json(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(without_byte_order_mark(read_file(path, limits.max_bytes)), path.string(), limits);
}

}  // namespace tally
