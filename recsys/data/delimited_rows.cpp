#include "tally/recsys/data/delimited_rows.h"

#include <algorithm>
#include <utility>

namespace tally::recsys {

DelimitedFormat csv_format() { return {.separator = ",", .quoted = true, .columns = {}}; }

DelimitedRows::DelimitedRows(const std::filesystem::path& path, DelimitedFormat format, StopRequested stop_requested)
    : reader_(path, LineReader::kMaxLine, std::move(stop_requested)),
      format_(std::move(format)),
      has_header_(format_.columns.empty()) {
  check_separator();
  if (has_header_) read_header();
  check_columns();
}

DelimitedRows::DelimitedRows(const std::filesystem::path& path, std::span<const DelimitedFormat> forms,
                             const std::function<bool(const std::vector<std::string>& names)>& is_header)
    : reader_(path) {
  check<ValueError>(!forms.empty(), "DelimitedRows", "needs a form");
  line_held_ = read_line();
  const auto fits = [&](const DelimitedFormat& form) {
    format_ = form;
    check_separator();
    return line_held_ && fits_line(is_header);
  };
  if (std::find_if(forms.begin(), forms.end(), fits) == forms.end()) {
    const auto given = std::find_if(forms.begin(), forms.end(), [](const auto& form) { return !form.columns.empty(); });
    format_ = given == forms.end() ? forms.back() : *given;
  }
  has_header_ = format_.columns.empty();
  if (has_header_) read_header();
  check_columns();
}

void DelimitedRows::check_separator() const {
  check<ValueError>(!format_.separator.empty(), "DelimitedRows", "needs a separator");
}

bool DelimitedRows::fits_line(const std::function<bool(const std::vector<std::string>& names)>& is_header) {
  // A quote that is open at the end of the line would make the splitting read on.
  if (format_.quoted && std::count(line_.begin(), line_.end(), '"') % 2 != 0) return false;
  try {
    split_line();
  } catch (const RowError&) {
    return false;
  }
  return format_.columns.empty() ? is_header(names_in_line()) : fields_.size() == format_.columns.size();
}

void DelimitedRows::check_columns() const {
  for (auto name = format_.columns.begin(); name != format_.columns.end(); ++name) {
    check<IoError>(std::find(format_.columns.begin(), name, *name) == name, where(), "names the column '", *name,
                   "' twice");
  }
}

std::string DelimitedRows::where() const { return detail::join(reader_.name(), ':', line_number_); }

void DelimitedRows::read_header() {
  check<IoError>(read_record(), reader_.name(), "is empty; needs a header line that names the columns");
  format_.columns = names_in_line();
}

std::vector<std::string> DelimitedRows::names_in_line() const {
  std::vector<std::string> names;
  for (const std::string_view field : fields_) names.emplace_back(field.substr(0, field.find(':')));
  return names;
}

std::size_t DelimitedRows::column(std::string_view name) const {
  const auto found = std::find(format_.columns.begin(), format_.columns.end(), name);
  if (found == format_.columns.end()) {
    fail<IoError>(reader_.name(), "needs a column '", name, "'; the columns are ", listed());
  }
  return static_cast<std::size_t>(found - format_.columns.begin());
}

bool DelimitedRows::has_column(std::string_view name) const {
  return std::find(format_.columns.begin(), format_.columns.end(), name) != format_.columns.end();
}

std::string DelimitedRows::listed() const {
  std::string list;
  for (const std::string& each : format_.columns) list += (list.empty() ? "" : ", ") + each;
  return list;
}

bool DelimitedRows::next() {
  if (!read_record()) return false;
  if (fields_.size() != format_.columns.size()) [[unlikely]] {
    const std::size_t found = fields_.size();
    take_back_lines();
    fail<RowError>(where(), "needs ", format_.columns.size(), " fields ",
                   has_header_ ? std::string("as the header has") : "(" + listed() + ")", "; got ", found);
  }
  return true;
}

bool DelimitedRows::next_line() {
  if (again_at_ < again_.size()) {
    const std::size_t end = std::min(again_.find('\n', again_at_), again_.size());
    line_ = std::string_view(again_).substr(again_at_, end - again_at_);
    again_at_ = end + 1;
    ++line_at_;
    return true;
  }
  if (!reader_.next(line_)) return false;
  line_at_ = reader_.line_number();
  return true;
}

bool DelimitedRows::read_line() {
  if (std::exchange(line_held_, false)) return true;
  while (next_line()) {
    if (!line_.empty()) [[likely]] {
      if (blank_line_ == 0) return true;
      line_held_ = true;
      line_number_ = std::exchange(blank_line_, 0);
      fail<RowError>(where(), "is a blank line amid the rows");
    }
    if (blank_line_ == 0) blank_line_ = line_at_;
  }
  return false;
}

bool DelimitedRows::read_record() {
  if (!read_line()) return false;
  line_number_ = line_at_;
  split_line();
  return true;
}

void DelimitedRows::split_line() {
  fields_.clear();
  starts_.clear();
  if (format_.quoted && line_.find('"') != std::string_view::npos) {
    split_quoted();
  } else {
    split_plain();
  }
}

void DelimitedRows::split_plain() {
  record_.clear();
  const std::string_view separator = format_.separator;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = separator.size() == 1 ? line_.find(separator[0], begin) : line_.find(separator, begin);
    starts_.push_back(begin);
    fields_.push_back(line_.substr(begin, end - begin));
    if (end == std::string_view::npos) return;
    begin = end + separator.size();
  }
}

void DelimitedRows::take_back_lines() {
  const std::size_t first = record_.find('\n');
  if (first == std::string::npos) return;
  std::string rest = record_.substr(first + 1) + '\n';
  if (again_at_ < again_.size()) rest.append(again_, again_at_);
  again_ = std::move(rest);
  again_at_ = 0;
  line_at_ = line_number_;
}

void DelimitedRows::refuse_quote(std::size_t at, std::string_view what) {
  take_back_lines();
  fail<RowError>(detail::join(where(), ':', at + 1), what);
}

void DelimitedRows::split_quoted() {
  const std::string_view separator = format_.separator;
  record_ = line_;
  unquoted_.clear();
  std::vector<std::size_t> ends;
  std::size_t at = 0;
  while (true) {
    starts_.push_back(at);
    if (at < record_.size() && record_[at] == '"') {
      const std::size_t opening = at++;
      while (true) {
        if (at == record_.size()) {
          if (!next_line()) refuse_quote(opening, "opens a quote that is never closed");
          record_.append(1, '\n').append(line_);
          if (record_.size() > LineReader::kMaxLine)
            refuse_quote(opening, "opens a quote that is not closed within 16 MiB");
        } else if (record_[at] != '"') {
          ++at;
          continue;
        } else if (at + 1 < record_.size() && record_[at + 1] == '"') {
          at += 2;
          continue;
        } else {
          break;
        }
      }
      for (std::size_t i = opening + 1; i < at; ++i) {
        unquoted_ += record_[i];
        i += record_[i] == '"';
      }
      ++at;
      if (at != record_.size() && record_.compare(at, separator.size(), separator) != 0) {
        refuse_quote(at, "has text after a closing quote");
      }
    } else {
      const std::size_t end = std::min(record_.find(separator, at), record_.size());
      const std::size_t quote = record_.find('"', at);
      if (quote < end) refuse_quote(quote, "has a quote within an unquoted field");
      unquoted_.append(record_, at, end - at);
      at = end;
    }
    ends.push_back(unquoted_.size());
    if (at == record_.size()) break;
    at += separator.size();
  }
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    fields_.push_back(std::string_view(unquoted_).substr(begin, end - begin));
    begin = end;
  }
}

}  // namespace tally::recsys
