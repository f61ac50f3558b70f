#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tally/core/options/option_tables.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/data/file_forms.h"
#include "tally/recsys/data/filters.h"
#include "tally/recsys/data/interactions.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// The section `data` of a config: a file of interactions, how it is read, and what is held out.
struct DataConfig {
  ChoiceTable<FileForm> readers = standard_readers();  ///< what `format` names

  std::string path = {};
  std::string format = "auto";
  std::string separator = {};
  std::vector<std::string> columns = {};
  std::string user_column = "user_id";
  std::string item_column = "item_id";
  std::string rating_column = {};
  std::string order_column = "auto";
  TieRule tie_rule = TieRule::file_order;
  std::int64_t tie_seed = 0;
  Duplicates duplicates = Duplicates::keep;
  std::optional<double> min_rating = {};
  std::string user_inter_num_interval = {};
  std::string item_inter_num_interval = {};
  Core core = Core::iterative;
  BadRows bad_rows = BadRows::error;
  std::string titles = {};
  std::string split = "leave_one_out";
  std::int64_t min_length = 3;
  ShortUsers short_users = ShortUsers::train;

  static void keys(auto& o, auto&& key) {
    key("path", o.path, "file of interactions, plain or gzip'd; relative to the config file");
    key("format", o.format, one_of(o.formats()), "form of the file; `auto`: the one that its name tells");
    key("separator", o.separator, "between fields, one or more characters; empty: the form's");
    key("columns", o.columns, "names, of a file without a header line; empty: the form's, or the header's");
    key("USER_ID_FIELD", o.user_column, "column of users");
    key("ITEM_ID_FIELD", o.item_column, "column of items");
    key("RATING_FIELD", o.rating_column, "column of ratings; empty: none");
    key("TIME_FIELD", o.order_column,
        "column of numbers that order events; empty: the file is in order; `auto`: the form's");
    key("tie_rule", o.tie_rule, only_if(o.has_times(), "a TIME_FIELD: without one the file is in order"),
        "order of events of a user at the same time");
    key("tie_seed", o.tie_seed, at_least(0), only_with("tie_rule", o.tie_rule, {TieRule::random}),
        "seed of that order");
    key("rm_dup_inter", o.duplicates, "further events of a user with the same item");
    key("min_rating", o.min_rating, "rows rated below are left out; null: none");
    key("user_inter_num_interval", o.user_inter_num_interval, counts(),
        "allowed events of a user, \"[5,inf)\"; empty: any number");
    key("item_inter_num_interval", o.item_inter_num_interval, counts(), "likewise of an item");
    key("core", o.core,
        only_if(o.filters_counts(), "a user_inter_num_interval or an item_inter_num_interval that leaves counts out"),
        "how often these two are applied");
    key("bad_rows", o.bad_rows, "malformed rows: an error, or left out and counted");
    key("titles", o.titles, "file of item titles; empty: none");
    key("split", o.split, one_of({"leave_one_out", "leave_last_out"}),
        "what is held out; `leave_last_out`: no validation");
    key("min_length", o.min_length, at_least(o.validates() ? 3 : 2), "users with fewer events are not evaluated");
    key("short_users", o.short_users, "what becomes of these in training");
  }
  void check(const std::string& section) const;

  /// Is there a column of times?
  bool has_times() const;
  bool validates() const { return split == "leave_one_out"; }
  /// Does an interval leave any count out?
  bool filters_counts() const;
  std::vector<std::string> formats() const;
  static TextDomain counts();
};

/// `auto` replaced by what it stands for: the form that the file's name tells, and the form's column of times (with
/// `columns` of its own: "timestamp" if it is among them).
DataConfig resolved(DataConfig data);

}  // namespace tally::recsys
