#pragma once

#include <memory>

#include "tally/core/options/option_walker.h"

// Tables that are values: rows by name, each with options of its own, and choices of a row. A program adds rows of its
// own to a copy.

namespace tally {

/// Of what has no options.
struct NoOptions {
  static void keys(auto&, auto&&) {}
};

/// Options of any struct that lists its own, or none.
class AnyOptions {
 public:
  AnyOptions() = default;
  template <Listed O>
  AnyOptions(O options) : held_(std::make_unique<Held<O>>(std::move(options))) {}
  AnyOptions(const AnyOptions& other) : held_(other.held_ ? other.held_->clone() : nullptr) {}
  AnyOptions(AnyOptions&&) noexcept = default;
  AnyOptions& operator=(AnyOptions other) noexcept {
    held_ = std::move(other.held_);
    return *this;
  }
  ~AnyOptions() = default;

  OptionList list() { return held_ ? held_->list() : OptionList{}; }
  /// The list of a copy, for those who only look.
  OptionList list() const {
    const auto copy = std::make_shared<AnyOptions>(*this);
    OptionList list = copy->list();
    list.owner = copy;
    return list;
  }
  /// Throws ValueError for another struct.
  template <class O>
  const O& as() const {
    const auto* held = dynamic_cast<const Held<O>*>(held_.get());
    check<ValueError>(held != nullptr, "options", "are of another kind than is asked for");
    return held->options;
  }

 private:
  struct Holder {
    virtual ~Holder() = default;
    virtual std::unique_ptr<Holder> clone() const = 0;
    virtual OptionList list() = 0;
  };
  template <class O>
  struct Held final : Holder {
    explicit Held(O o) : options(std::move(o)) {}
    std::unique_ptr<Holder> clone() const override { return std::make_unique<Held>(options); }
    OptionList list() override { return OptionWalker::list_of(options); }
    O options;
  };
  std::unique_ptr<Holder> held_;
};

/// Rows by name. A row has `name`, and where it can be chosen in a config `options` with their defaults. Copies share
/// the rows; add() parts them.
template <class Row>
class ChoiceTable {
 public:
  /// `of` names a row in messages: "model".
  ChoiceTable(std::string of, std::vector<Row> rows)
      : of_(std::move(of)), rows_(std::make_shared<const std::vector<Row>>(std::move(rows))) {}

  /// Throws ConfigError when a row has the name.
  void add(Row row) {
    check<ConfigError>(find(row.name) == nullptr, of_, "needs names that differ; \"", row.name, "\" is there already");
    auto rows = std::make_shared<std::vector<Row>>(*rows_);
    rows->push_back(std::move(row));
    rows_ = std::move(rows);
  }
  /// Null when there is none.
  const Row* find(std::string_view name) const {
    for (const Row& row : *rows_) {
      if (row.name == name) return &row;
    }
    return nullptr;
  }
  /// Throws ConfigError naming the nearest.
  const Row& at(const std::string& name) const {
    const Row* row = find(name);
    if (row == nullptr) fail_unknown(name);
    return *row;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const Row& row : *rows_) all.push_back(row.name);
    return all;
  }
  const std::string& of() const { return of_; }
  auto begin() const { return rows_->begin(); }
  auto end() const { return rows_->end(); }

 private:
  [[noreturn]] void fail_unknown(const std::string& name) const {
    fail<ConfigError>(of_, "does not know \"", name, '"', suggestion(name, names()));
  }

  std::string of_;
  std::shared_ptr<const std::vector<Row>> rows_;
};

/// A row of a table and its options as they are set.
template <class Row>
class Choice {
 public:
  AnyOptions options;

  /// Throws ConfigError for a name that the table has not.
  Choice(ChoiceTable<Row> table, const std::string& name) : table_(std::move(table)) { choose(name); }

  const ChoiceTable<Row>& table() const { return table_; }
  const Row& row() const { return table_.at(name_); }
  const std::string& name() const { return name_; }
  /// Another row, with its defaults.
  void choose(const std::string& name) {
    if (name == name_) return;
    options = table_.at(name).options;
    name_ = name;
  }

 private:
  ChoiceTable<Row> table_;
  std::string name_;
};

}  // namespace tally
