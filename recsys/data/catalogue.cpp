#include "tally/recsys/data/catalogue.h"

#include <algorithm>
#include <charconv>

#include "tally/core/io/file.h"
#include "tally/core/io/sha256.h"
#include "tally/recsys/data/delimited_rows.h"

namespace tally::recsys {
namespace {

constexpr const char* kId = "item_id";
constexpr const char* kEvents = "training_events";
constexpr const char* kTitle = "title";

std::int64_t parse_count(const DelimitedRows& rows, std::size_t column) {
  const std::string_view field = rows.field(column);
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), count);
  if (error != std::errc() || end != field.data() + field.size() || count < 0) {
    rows.refuse(column, "needs a number of events; got '", field, "'");
  }
  return count;
}

}  // namespace

std::string Catalogue::label(std::int32_t item) const {
  const auto i = static_cast<std::size_t>(item);
  return titles.empty() || titles[i].empty() ? std::string(ids.name(item)) : titles[i];
}

std::vector<std::uint8_t> Catalogue::trained() const {
  std::vector<std::uint8_t> is_trained(training_events.size());
  std::transform(training_events.begin(), training_events.end(), is_trained.begin(),
                 [](std::int64_t events) { return static_cast<std::uint8_t>(events > 0); });
  return is_trained;
}

Catalogue catalogue_of(const Split& split, const std::unordered_map<std::string, std::string>& titles) {
  Catalogue catalogue{split.data().items, split.training_counts(), {}};
  if (titles.empty()) return catalogue;
  for (std::int32_t item = 0; item < catalogue.size(); ++item) {
    const auto found = titles.find(std::string(catalogue.ids.name(item)));
    catalogue.titles.push_back(found == titles.end() ? "" : found->second);
  }
  return catalogue;
}

void write_catalogue(const std::filesystem::path& path, const Catalogue& catalogue) {
  std::string text = detail::join(kId, '\t', kEvents);
  if (!catalogue.titles.empty()) text += detail::join('\t', kTitle);
  text += '\n';
  for (std::int32_t item = 0; item < catalogue.size(); ++item) {
    const auto i = static_cast<std::size_t>(item);
    text.append(catalogue.ids.name(item)).append(1, '\t').append(std::to_string(catalogue.training_events[i]));
    if (!catalogue.titles.empty()) text.append(1, '\t').append(in_one_cell(catalogue.titles[i]));
    text += '\n';
  }
  write_file_atomically(path, text);
}

Catalogue read_catalogue(const std::filesystem::path& path) {
  DelimitedRows rows(path);
  const std::size_t id = rows.column(kId), events = rows.column(kEvents);
  const std::size_t title = rows.has_column(kTitle) ? rows.column(kTitle) : rows.columns().size();
  Catalogue catalogue;
  while (rows.next()) {
    const auto next = static_cast<std::int32_t>(catalogue.size());
    if (rows.field(id).empty()) rows.refuse(id, "needs an item; got an empty field");
    if (catalogue.ids.add(rows.field(id)) != next) rows.refuse(id, "has the item '", rows.field(id), "' twice");
    catalogue.training_events.push_back(parse_count(rows, events));
    if (title < rows.columns().size()) catalogue.titles.emplace_back(rows.field(title));
  }
  return catalogue;
}

std::string in_one_cell(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; }, ' ');
  return text;
}

std::string order_hash(const IdMap& ids) {
  Sha256 hash;
  for (std::int32_t i = 0; i < ids.size(); ++i) {
    const std::string_view id = ids.name(i);
    hash.update(std::to_string(id.size()) + ':');
    hash.update(id);
  }
  return hash.hex();
}

}  // namespace tally::recsys
