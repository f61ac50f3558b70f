#include "tally/ops/attention/histogram_state.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "tally/core/blas.h"
#include "tally/core/io/fingerprint.h"
#include "tally/ops/kernels/histogram_tile.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "HistogramState";
constexpr std::string_view kMagic = "tally.histogram";  // its terminator is saved too
constexpr std::uint32_t kVersion = 3;                   // 2: another checksum
constexpr double kSmallCount = 1e-20;  // of all counts of a codebook: they are scaled before they become f32
constexpr std::int64_t kMostEvents = std::int64_t{1} << 53;  // of a saved state: beyond, counts would not be exact

std::int64_t padded_words(std::int64_t words) {
  return (words + kernels::kCodewordPadding - 1) / kernels::kCodewordPadding * kernels::kCodewordPadding;
}

/// A decayed count. One too small to be told from nothing becomes nothing: rounding would keep it among the denormal
/// numbers for good, where every product is slow.
double decayed(double count, double decay) {
  const double left = count * decay;
  return left < 1e-300 ? 0 : left;
}

std::string describe(const HistogramLayout& layout) {
  return detail::join(layout.codebooks, " codebooks of ", layout.words, " words, window ", layout.window, ", rate ",
                      layout.rate, layout.soft ? ", soft" : "", ", fingerprint ", layout.fingerprint);
}

}  // namespace

HistogramReader::HistogramReader(const Tensor& tables, const Tensor& values, double scale, std::uint64_t fingerprint)
    : scale_(scale), fingerprint_(fingerprint) {
  const Shape &st = tables.shape(), &sv = values.shape();
  check<DTypeError>(tables.dtype() == DType::f32 && values.dtype() == DType::f32, kName,
                    "needs tables and values of f32; got ", tables.dtype(), " and ", values.dtype());
  check<ShapeError>(st.rank() == 3 && st[1] == st[2] && sv.rank() == 2 && st[0] > 0 && st[1] > 0 && sv[1] > 0 &&
                        sv[0] == st[0] * st[1],
                    kName, "needs tables [B, W, W] and values [B * W, D]; got tables ", st, " and values ", sv);
  check<ValueError>(all_finite(tables) && all_finite(values) && std::isfinite(scale), kName,
                    "needs finite tables, values and scale");
  tables_ = tables.contiguous();
  values_ = values.contiguous();
  if (scale_ == 0) scale_ = 1 / std::sqrt(static_cast<double>(sv[1]));
  const std::int64_t padded = padded_words(st[1]);
  exponentials_ = Tensor({st[0], st[1], padded});
  for (std::int64_t b = 0; b < st[0]; ++b) {
    kernels::tabulate_exponentials(tables_.data<float>() + b * st[1] * st[1], st[1], padded, scale_,
                                   exponentials_.mutable_data<float>() + b * st[1] * padded);
  }
}

HistogramState::HistogramState(const HistogramLayout& layout) : layout_(layout) {
  check<ValueError>(layout.codebooks > 0 && layout.words > 0, kName,
                    "needs at least one codebook and one codeword; got ", layout.codebooks, " and ", layout.words);
  check<ValueError>(layout.window >= 0, kName, "needs a window of at least 1, or 0 for none; got ", layout.window);
  check<ValueError>(layout.rate >= 0 && std::isfinite(layout.rate), kName, "needs a finite rate of at least 0; got ",
                    layout.rate);
  check<ValueError>(!layout.soft || layout.window == 0, kName, "has no window over soft events; got window ",
                    layout.window);
  const std::size_t size = place(layout.codebooks, 0);
  if (needs_counts()) counts_.resize(size);
  if (!whole()) real_.resize(size);
}

std::int64_t HistogramState::size() const { return layout_.window > 0 ? std::min(events_, layout_.window) : events_; }

double HistogramState::count(std::int64_t codebook, std::int64_t word) const {
  check<IndexError>(codebook >= 0 && codebook < layout_.codebooks && word >= 0 && word < layout_.words, kName,
                    "needs a codeword of ", describe(layout_), "; got codeword ", word, " of codebook ", codebook);
  const std::size_t at = place(codebook, word);
  return whole() ? static_cast<double>(counts_[at]) : real_[at];
}

std::size_t HistogramState::bytes() const {
  return sizeof(*this) + counts_.capacity() * sizeof(std::uint32_t) + real_.capacity() * sizeof(double) +
         recent_.capacity();
}

void HistogramState::check_codes(std::string_view what, std::span<const std::int32_t> codes) const {
  check<ShapeError>(static_cast<std::int64_t>(codes.size()) == layout_.codebooks, kName, what, " needs ",
                    layout_.codebooks, " codes; got ", codes.size());
  for (std::size_t b = 0; b < codes.size(); ++b) {
    check<IndexError>(codes[b] >= 0 && codes[b] < layout_.words, kName, what, " needs codes in [0, ", layout_.words,
                      "); got ", codes[b], " of codebook ", b);
  }
}

std::int32_t HistogramState::recent(std::int64_t row, std::int64_t codebook) const {
  const auto i = static_cast<std::size_t>(row * layout_.codebooks + codebook);
  if (code_bytes() == 1) return recent_[i];
  std::int32_t code;
  std::memcpy(&code, recent_.data() + i * sizeof(code), sizeof(code));
  return code;
}

void HistogramState::set_recent(std::int64_t row, std::int64_t codebook, std::int32_t code) {
  const auto i = static_cast<std::size_t>(row * layout_.codebooks + codebook);
  if (code_bytes() == 1) {
    recent_[i] = static_cast<std::uint8_t>(code);
  } else {
    std::memcpy(recent_.data() + i * sizeof(code), &code, sizeof(code));
  }
}

void HistogramState::grow_recent(std::int64_t rows) {
  const std::size_t row = static_cast<std::size_t>(layout_.codebooks) * code_bytes();
  const std::size_t size = static_cast<std::size_t>(rows) * row;
  // Twice as much each time, and never more than the window takes.
  if (size > recent_.capacity()) recent_.reserve(static_cast<std::size_t>(std::min(2 * rows, layout_.window)) * row);
  recent_.resize(size);
}

void HistogramState::append(std::span<const std::int32_t> codes) {
  check_codes("append", codes);
  check<ValueError>(!layout_.soft, kName, "of soft events cannot append codes");
  if (layout_.window == 0 && whole()) {
    for (std::int64_t b = 0; b < layout_.codebooks; ++b) {
      const std::uint32_t count = counts_[place(b, codes[static_cast<std::size_t>(b)])];
      check<ValueError>(count < std::numeric_limits<std::uint32_t>::max(), kName, "the count of codeword ",
                        codes[static_cast<std::size_t>(b)], " of codebook ", b, " does not fit 32 bits");
    }
  }
  if (!whole()) {
    const double decay = std::exp(-layout_.rate);
    for (double& count : real_) count = decayed(count, decay);
  }
  const bool full = layout_.window > 0 && events_ >= layout_.window;
  const double oldest = full ? std::exp(-layout_.rate * static_cast<double>(layout_.window)) : 0;
  const std::int64_t row = layout_.window > 0 ? events_ % layout_.window : 0;
  for (std::int64_t b = 0; b < layout_.codebooks; ++b) {
    const std::int32_t code = codes[static_cast<std::size_t>(b)];
    if (full) {
      const std::size_t leaves = place(b, recent(row, b));
      --counts_[leaves];
      if (!whole()) real_[leaves] = counts_[leaves] == 0 ? 0 : std::max(real_[leaves] - oldest, 0.0);
    }
    if (layout_.window > 0) {
      if (!full && b == 0) grow_recent(row + 1);
      set_recent(row, b, code);
    }
    if (needs_counts()) ++counts_[place(b, code)];
    if (!whole()) real_[place(b, code)] += 1;
  }
  ++events_;
}

void HistogramState::append_soft(std::span<const float> assignments) {
  check<ValueError>(layout_.soft, kName, "of codes cannot append soft events");
  check<ShapeError>(assignments.size() == real_.size(), kName, "append needs ", real_.size(), " assignments; got ",
                    assignments.size());
  for (const float each : assignments) {
    check<ValueError>(std::isfinite(each) && each >= 0, kName, "append needs finite assignments of at least 0; got ",
                      each);
  }
  const double decay = std::exp(-layout_.rate);
  for (std::size_t i = 0; i < real_.size(); ++i)
    real_[i] = decayed(real_[i], decay) + static_cast<double>(assignments[i]);
  ++events_;
}

void HistogramState::remove(std::span<const std::int32_t> codes) {
  check_codes("remove", codes);
  check<ValueError>(whole() && layout_.window == 0, kName,
                    "removes events of codes only, without decay and window; got ", describe(layout_));
  for (std::int64_t b = 0; b < layout_.codebooks; ++b) {
    const std::int32_t code = codes[static_cast<std::size_t>(b)];
    check<ValueError>(counts_[place(b, code)] > 0, kName, "removes events that were appended; codeword ", code,
                      " of codebook ", b, " has count 0");
  }
  for (std::int64_t b = 0; b < layout_.codebooks; ++b) --counts_[place(b, codes[static_cast<std::size_t>(b)])];
  --events_;
}

void HistogramState::merge(const HistogramState& other, std::int64_t gap) {
  check<ValueError>(layout_ == other.layout_, kName, "merges states of one layout; got ", describe(layout_), " and ",
                    describe(other.layout_));
  check<ValueError>(layout_.window == 0, kName, "merges states without a window; got window ", layout_.window);
  check<ValueError>(gap >= 0, kName, "needs a gap of at least 0 events; got ", gap);
  if (whole()) {
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      check<ValueError>(other.counts_[i] <= std::numeric_limits<std::uint32_t>::max() - counts_[i], kName,
                        "merged counts do not fit 32 bits");
    }
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  } else {
    const double decay = std::exp(-layout_.rate * static_cast<double>(gap));
    std::vector<double> merged = real_;
    for (std::size_t i = 0; i < merged.size(); ++i) merged[i] += decayed(other.real_[i], decay);
    for (std::int64_t b = 0; b < layout_.codebooks && other.events_ > 0; ++b) {
      check<ValueError>(largest(merged, b) > 0 || largest(other.real_, b) == 0, kName,
                        "merges events that still count; over a gap of ", gap, " events they have decayed to nothing");
    }
    real_ = std::move(merged);
  }
  events_ += other.events_;
}

double HistogramState::largest(const std::vector<double>& counts, std::int64_t codebook) const {
  const auto first = counts.begin() + static_cast<std::ptrdiff_t>(place(codebook, 0));
  return *std::max_element(first, first + layout_.words);
}

double HistogramState::scale(std::int64_t codebook) const {
  if (whole()) return 1;
  const double most = largest(real_, codebook);
  check<ValueError>(most > 0, kName, "answers queries while events count; those of codebook ", codebook,
                    " count nothing");
  return most < kSmallCount ? 1 / most : 1;
}

void HistogramState::check_query(const HistogramReader& reader, std::span<const float> out) const {
  check<ValueError>(reader.codebooks() == layout_.codebooks && reader.words() == layout_.words &&
                        reader.fingerprint() == layout_.fingerprint,
                    kName, "is of another model: has ", describe(layout_), "; the reader has ", reader.codebooks(),
                    " codebooks of ", reader.words(), " words, fingerprint ", reader.fingerprint());
  check<ShapeError>(static_cast<std::int64_t>(out.size()) == reader.width(), kName, "needs room for ", reader.width(),
                    " elements; got ", out.size());
  check<ValueError>(size() > 0, kName, "answers queries once an event was appended");
}

void HistogramState::query_soft(std::span<const float> assignments, const HistogramReader& reader,
                                std::span<float> out) const {
  check<ValueError>(layout_.soft, kName, "of codes cannot answer soft queries");
  check<ShapeError>(assignments.size() == real_.size(), kName, "query needs ", real_.size(), " assignments; got ",
                    assignments.size());
  check_query(reader, out);
  const std::int64_t words = layout_.words;
  const float* products = reader.tables_.data<float>();
  std::vector<float> probabilities(real_.size());
  std::vector<double> logits(static_cast<std::size_t>(words));
  for (std::int64_t b = 0; b < layout_.codebooks; ++b) {
    const double factor = scale(b);
    std::fill(logits.begin(), logits.end(), 0.0);
    for (std::int64_t u = 0; u < words; ++u) {
      const double weight = static_cast<double>(assignments[place(b, u)]) * reader.scale_;
      const float* row = products + (b * words + u) * words;
      for (std::size_t w = 0; w < logits.size(); ++w) logits[w] += weight * static_cast<double>(row[w]);
    }
    for (std::size_t w = 0; w < logits.size(); ++w) {
      logits[w] += std::log(real_[place(b, static_cast<std::int64_t>(w))] * factor +
                            static_cast<double>(std::numeric_limits<float>::min()));
    }
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (double& logit : logits) sum += logit = std::exp(logit - largest);
    for (std::size_t w = 0; w < logits.size(); ++w) {
      probabilities[place(b, static_cast<std::int64_t>(w))] = static_cast<float>(logits[w] / sum);
    }
  }
  blas::gemv(blas::Transpose::yes, layout_.codebooks * words, reader.width(), 1, reader.values_.data<float>(),
             reader.width(), probabilities.data(), 0, out.data());
}

void HistogramState::query(std::span<const std::int32_t> codes, const HistogramReader& reader,
                           std::span<float> out) const {
  check_codes("query", codes);
  check_query(reader, out);
  const std::int64_t words = layout_.words, padded = padded_words(words);
  kernels::CodewordTables<float> tables;
  tables.codebooks = layout_.codebooks;
  tables.words = words;
  tables.padded = padded;
  tables.scale = reader.scale_;
  tables.products = reader.tables_.data<float>();
  tables.exponentials = reader.exponentials_.data<float>();
  std::vector<float> probabilities(static_cast<std::size_t>(tables.stride()));
  for (std::int64_t b = 0; b < layout_.codebooks; ++b) {
    const double factor = scale(b);
    for (std::int64_t w = 0; w < words; ++w) {
      const std::size_t at = place(b, w);
      const double count = whole() ? static_cast<double>(counts_[at]) : real_[at] * factor;
      const bool denormal = count < static_cast<double>(std::numeric_limits<float>::min());
      probabilities[static_cast<std::size_t>(b * padded + w)] = denormal ? 0.0f : static_cast<float>(count);
    }
  }
  std::vector<float> normalizers(static_cast<std::size_t>(2 * layout_.codebooks));
  kernels::CodeRows row;
  row.wide = codes.data();
  row.codebooks = layout_.codebooks;
  kernels::histogram_probabilities(tables, row, 1, probabilities.data(),
                                   {normalizers.data(), normalizers.data() + layout_.codebooks});
  if (padded != words) {
    for (std::int64_t b = 1; b < layout_.codebooks; ++b) {
      std::copy_n(probabilities.data() + b * padded, words, probabilities.data() + b * words);
    }
  }
  blas::gemv(blas::Transpose::yes, layout_.codebooks * words, reader.width(), 1, reader.values_.data<float>(),
             reader.width(), probabilities.data(), 0, out.data());
}

/// Bytes that somebody made may hold anything: are these counts that events can have left?
bool HistogramState::consistent() const {
  if (events_ < 0 || events_ > kMostEvents) return false;
  for (const double count : real_) {
    if (!std::isfinite(count) || count < 0) return false;
  }
  const auto total = [&](const auto& counts, std::int64_t b) {
    const auto first = counts.begin() + static_cast<std::ptrdiff_t>(place(b, 0));
    return std::accumulate(first, first + layout_.words, 0.0);
  };
  for (std::int64_t b = 0; b < layout_.codebooks; ++b) {
    if (needs_counts() && total(counts_, b) != static_cast<double>(size())) return false;
    // Assignments are what somebody made them; codes leave something, however old.
    if (!whole() && !layout_.soft && events_ > 0 && total(real_, b) == 0) return false;
  }
  if (layout_.window == 0) return true;
  std::vector<std::uint32_t> tally(counts_.size());
  for (std::int64_t row = 0; row < size(); ++row) {
    for (std::int64_t b = 0; b < layout_.codebooks; ++b) {
      const std::int32_t code = recent(row, b);
      if (code < 0 || code >= layout_.words) return false;
      ++tally[place(b, code)];
    }
  }
  return tally == counts_;
}

std::string HistogramState::save() const {
  std::string bytes(kMagic);
  bytes.push_back('\0');
  write_value(bytes, kVersion);
  write_value(bytes, layout_.codebooks);
  write_value(bytes, layout_.words);
  write_value(bytes, layout_.window);
  write_value(bytes, layout_.rate);
  write_value(bytes, static_cast<std::uint8_t>(layout_.soft));
  write_value(bytes, layout_.fingerprint);
  write_value(bytes, events_);
  write(bytes);
  write_value(bytes, fingerprint(bytes));
  return bytes;
}

HistogramState HistogramState::load(std::string_view bytes, const HistogramLayout& expected) {
  ByteReader in(bytes, kName);
  const std::string_view magic = in.take(kMagic.size() + 1);
  check<IoError>(magic.substr(0, kMagic.size()) == kMagic && magic.back() == '\0', kName,
                 "these bytes are no saved state");
  const auto version = in.read<std::uint32_t>();
  check<IoError>(version == kVersion, kName, "reads saved states of version ", kVersion, "; got ", version);
  HistogramLayout layout;
  layout.codebooks = in.read<std::int64_t>();
  layout.words = in.read<std::int64_t>();
  layout.window = in.read<std::int64_t>();
  layout.rate = in.read<double>();
  layout.soft = in.read<std::uint8_t>() != 0;
  layout.fingerprint = in.read<std::uint64_t>();
  check<ValueError>(layout == expected, kName, "the saved state is of another model: needs ", describe(expected),
                    "; got ", describe(layout));
  const auto events = in.read<std::int64_t>();
  check<IoError>(events >= 0, kName, "the saved state has ", events, " events");
  const HistogramState empty(expected);
  const auto rows = static_cast<std::size_t>(std::min(events, layout.window));  // whose codes a window keeps
  const std::size_t size = empty.counts_.size() * sizeof(std::uint32_t) + empty.real_.size() * sizeof(double) +
                           rows * static_cast<std::size_t>(layout.codebooks) * empty.code_bytes();
  ByteReader content(in.take(size), kName);
  const auto sum = in.read<std::uint64_t>();
  in.expect_end();
  check<IoError>(sum == fingerprint(bytes.substr(0, bytes.size() - sizeof(sum))), kName, "the saved state is damaged");
  return read(content, expected, events);
}

void HistogramState::write(std::string& to) const {
  write_values(to, std::span<const std::uint32_t>(counts_));
  write_values(to, std::span<const double>(real_));
  write_values(to, std::span<const std::uint8_t>(recent_));
}

HistogramState HistogramState::read(ByteReader& bytes, const HistogramLayout& layout, std::int64_t events) {
  HistogramState state(layout);
  check<IoError>(events >= 0, kName, "the saved state has ", events, " events");
  state.events_ = events;
  bytes.read(std::span(state.counts_));
  bytes.read(std::span(state.real_));
  if (layout.window > 0) {
    const std::size_t row = static_cast<std::size_t>(layout.codebooks) * state.code_bytes();
    check<IoError>(static_cast<std::uint64_t>(state.size()) <= bytes.left() / row, kName,
                   "the saved state is cut off: it has ", events, " events");
    state.recent_.resize(static_cast<std::size_t>(state.size()) * row);
  }
  bytes.read(std::span(state.recent_));
  check<IoError>(state.consistent(), kName, "the saved state has counts or codes outside their range");
  return state;
}

}  // namespace tally::ops
