#include "tally/ops/lookup/representation_collection.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "tally/core/bytes.h"
#include "tally/core/io/file.h"
#include "tally/core/io/fingerprint.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/packed_symmetric.h"

namespace tally::ops {
namespace {

constexpr std::string_view kCollection = "representation_collection";
constexpr std::uint64_t kFileMagic = 0x534E5352594C4154;  // "TALYRSNS"
constexpr std::uint32_t kFileVersion = 1;
constexpr std::int64_t kLine = 64;           // bytes: documents begin at whole cache lines
constexpr std::int64_t kBlock = 64;          // documents of a block of memory, and of a task
constexpr std::int64_t kMaxWidth = 1 << 20;  // sizes of files stay far from overflow

/// The first bytes of a file; ids [count] and, at the next whole line, the documents follow.
struct Header {
  std::uint64_t magic = kFileMagic;
  std::uint32_t version = kFileVersion;
  std::uint32_t storage = 0;
  std::int64_t width = 0;
  std::int64_t count = 0;
  std::uint64_t fingerprint = 0;  // of the fields above and the ids
  std::array<std::uint64_t, 3> reserved = {};
};
static_assert(sizeof(Header) == kLine);

std::int64_t whole_lines(std::int64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

std::int64_t stride_of(std::int64_t width, RepresentationStorage storage) {
  const std::int64_t elements = kernels::packed_symmetric_size(width);
  return whole_lines(storage == RepresentationStorage::f32 ? 4 * elements : 4 * width + elements);
}

std::uint64_t fingerprint_of(const Header& header, std::span<const std::int64_t> ids) {
  std::string bytes;
  write_value(bytes, header.storage);
  write_value(bytes, header.width);
  write_values(bytes, ids);
  return fingerprint(bytes);
}

/// A document of int8: factors d [k], then the packed elements.
struct QuantizedDocument {
  const float* factors;
  const std::int8_t* packed;

  QuantizedDocument(const std::byte* document, std::int64_t width)
      : factors(reinterpret_cast<const float*>(document)),
        packed(reinterpret_cast<const std::int8_t*>(document + 4 * width)) {}

  /// The query times the factors.
  std::vector<float> scaled(const float* query, std::int64_t width) const {
    std::vector<float> scaled(query, query + width);
    for (std::size_t i = 0; i < scaled.size(); ++i) scaled[i] *= factors[i];
    return scaled;
  }
};

void quantize(const float* packed, std::int64_t width, float* factors, std::int8_t* to) {
  std::vector<double> largest(static_cast<std::size_t>(width));
  const float* element = packed;
  for (std::int64_t i = 0; i < width; ++i) {
    for (std::int64_t j = 0; j <= i; ++j, ++element) {
      for (const std::int64_t row : {i, j}) {
        double& of = largest[static_cast<std::size_t>(row)];
        of = std::max(of, std::abs(double{*element}));
      }
    }
  }
  for (std::int64_t i = 0; i < width; ++i) {
    factors[i] = static_cast<float>(std::sqrt(largest[static_cast<std::size_t>(i)] / 127));
  }
  for (std::int64_t i = 0; i < width; ++i) {
    for (std::int64_t j = 0; j <= i; ++j, ++packed, ++to) {
      const double factor = double{factors[i]} * double{factors[j]};
      *to = factor > 0 ? static_cast<std::int8_t>(std::clamp(std::nearbyint(*packed / factor), -127.0, 127.0)) : 0;
    }
  }
}

}  // namespace

RepresentationCollection::RepresentationCollection(std::int64_t width, RepresentationStorage storage)
    : width_(width), storage_(storage), stride_(0) {
  check<ValueError>(width > 0 && width <= kMaxWidth, kCollection, "needs a width within [1, ", kMaxWidth, "]; got ",
                    width);
  stride_ = stride_of(width, storage);
}

const std::byte* RepresentationCollection::document(std::int64_t place) const {
  if (place < mapped_) return mapped_documents_ + place * stride_;
  const std::int64_t own = place - mapped_;
  const auto* block = blocks_[static_cast<std::size_t>(own / kBlock)].data<std::uint8_t>();
  return reinterpret_cast<const std::byte*>(block + own % kBlock * stride_);
}

std::byte* RepresentationCollection::mutable_document(std::int64_t place) {
  if (place < mapped_) return mapped_documents_ + place * stride_;
  const std::int64_t own = place - mapped_;
  auto* block = blocks_[static_cast<std::size_t>(own / kBlock)].mutable_data<std::uint8_t>();
  return reinterpret_cast<std::byte*>(block + own % kBlock * stride_);
}

void RepresentationCollection::add(std::int64_t id, const Representation& added) {
  check<ShapeError>(added.width() == width_, kCollection, "needs representations of width ", width_, "; got ",
                    added.width());
  check<ValueError>(!contains(id), kCollection, "document ", id, " is there already");
  std::vector<float> packed(added.packed().size());
  for (std::size_t i = 0; i < packed.size(); ++i) {
    packed[i] = static_cast<float>(added.packed()[i]);
    check<ValueError>(std::isfinite(packed[i]), kCollection, "needs elements that f32 holds; one of document ", id,
                      " is ", added.packed()[i]);
  }
  const std::int64_t place = size();
  if (place - mapped_ == static_cast<std::int64_t>(blocks_.size()) * kBlock) {
    blocks_.push_back(Tensor::zeros({kBlock * stride_}, DType::u8));
  }
  std::byte* to = mutable_document(place);
  if (storage_ == RepresentationStorage::f32) {
    std::memcpy(to, packed.data(), packed.size() * sizeof(float));
  } else {
    quantize(packed.data(), width_, reinterpret_cast<float*>(to), reinterpret_cast<std::int8_t*>(to + 4 * width_));
  }
  places_.emplace(id, place);
  ids_.push_back(id);
}

void RepresentationCollection::remove(std::int64_t id) {
  const auto found = places_.find(id);
  check<IndexError>(found != places_.end(), kCollection, "there is no document ", id);
  const std::int64_t place = found->second, last = size() - 1;
  if (place != last) {
    std::memcpy(mutable_document(place), document(last), static_cast<std::size_t>(stride_));
    ids_[static_cast<std::size_t>(place)] = ids_.back();
    places_[ids_.back()] = place;
  }
  places_.erase(id);
  ids_.pop_back();
  if (last < mapped_) {
    mapped_ = last;
  } else if (block_count(last - mapped_, kBlock) < static_cast<std::int64_t>(blocks_.size())) {
    blocks_.pop_back();
  }
}

void RepresentationCollection::check_query(std::span<const float> query) const {
  check<ShapeError>(static_cast<std::int64_t>(query.size()) == width_, kCollection, "needs a query of ", width_,
                    " elements; got ", query.size());
  check<ValueError>(std::all_of(query.begin(), query.end(), [](float x) { return std::isfinite(x); }), kCollection,
                    "needs a finite query");
}

void RepresentationCollection::product(std::int64_t place, const float* query, float* out) const {
  if (storage_ == RepresentationStorage::f32) {
    kernels::packed_symmetric_product(reinterpret_cast<const float*>(document(place)), query, width_, out);
    return;
  }
  const QuantizedDocument quantized(document(place), width_);
  const std::vector<float> scaled = quantized.scaled(query, width_);
  kernels::packed_symmetric_product(quantized.packed, scaled.data(), width_, out);
  for (std::int64_t i = 0; i < width_; ++i) out[i] *= quantized.factors[i];
}

float RepresentationCollection::score(std::int64_t place, const float* query) const {
  if (storage_ == RepresentationStorage::f32) {
    return kernels::packed_symmetric_form(reinterpret_cast<const float*>(document(place)), query, width_);
  }
  const QuantizedDocument quantized(document(place), width_);
  const std::vector<float> scaled = quantized.scaled(query, width_);
  return kernels::packed_symmetric_form(quantized.packed, scaled.data(), width_);
}

void RepresentationCollection::look_up(std::int64_t id, std::span<const float> query, std::span<float> out) const {
  check_query(query);
  check<ShapeError>(out.size() == query.size(), kCollection, "needs room for ", width_, " elements; got ", out.size());
  const auto found = places_.find(id);
  check<IndexError>(found != places_.end(), kCollection, "there is no document ", id);
  product(found->second, query.data(), out.data());
}

void RepresentationCollection::products(std::span<const float> query, std::span<float> out) const {
  check_query(query);
  check<ShapeError>(static_cast<std::int64_t>(out.size()) == size() * width_, kCollection, "needs room for ", size(),
                    " x ", width_, " elements; got ", out.size());
  parallel_for(size(), kBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t place = begin; place < end; ++place) product(place, query.data(), out.data() + place * width_);
  });
}

void RepresentationCollection::scores(std::span<const float> query, std::span<float> out) const {
  check_query(query);
  check<ShapeError>(static_cast<std::int64_t>(out.size()) == size(), kCollection, "needs room for ", size(),
                    " scores; got ", out.size());
  parallel_for(size(), kBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t place = begin; place < end; ++place)
      out[static_cast<std::size_t>(place)] = score(place, query.data());
  });
}

std::vector<RepresentationCollection::Match> RepresentationCollection::best(std::span<const float> query,
                                                                            std::int64_t count) const {
  check<ValueError>(count >= 0, kCollection, "needs a number of documents of at least 0; got ", count);
  std::vector<float> all(ids_.size());
  scores(query, all);
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto middle = order.begin() + std::min(count, size());
  std::partial_sort(order.begin(), middle, order.end(),
                    [&](std::size_t a, std::size_t b) { return all[a] != all[b] ? all[a] > all[b] : a < b; });
  std::vector<Match> matches;
  for (auto it = order.begin(); it != middle; ++it) matches.push_back({ids_[*it], all[*it]});
  return matches;
}

void RepresentationCollection::save(const std::filesystem::path& path) const {
  Header header;
  header.storage = static_cast<std::uint32_t>(storage_);
  header.width = width_;
  header.count = size();
  header.fingerprint = fingerprint_of(header, ids_);
  AtomicFile file(path);
  file.write(&header, sizeof(header));
  file.write(ids_.data(), ids_.size() * sizeof(std::int64_t));
  const std::int64_t written = kLine + 8 * size();
  file.write(std::string(static_cast<std::size_t>(whole_lines(written) - written), '\0'));
  for (std::int64_t place = 0; place < size(); ++place) file.write(document(place), static_cast<std::size_t>(stride_));
  file.commit();
}

RepresentationCollection RepresentationCollection::open(const std::filesystem::path& path) {
  MappedFile file(path);
  const std::string name = path.string();
  const auto bytes = static_cast<std::int64_t>(file.bytes().size());
  Header header;
  check<IoError>(bytes >= kLine, name, "needs a collection of representations; got ", bytes, " bytes");
  std::memcpy(&header, file.bytes().data(), sizeof(header));
  check<IoError>(header.magic == kFileMagic, name, "is no collection of representations");
  check<IoError>(header.version == kFileVersion, name, "needs version ", kFileVersion, " of the layout; got ",
                 header.version);
  check<IoError>(header.storage <= static_cast<std::uint32_t>(RepresentationStorage::int8), name,
                 "names a storage that is not known: ", header.storage);
  check<IoError>(header.width > 0 && header.width <= kMaxWidth && header.count >= 0 && header.count <= bytes / 8, name,
                 "names sizes that the file cannot hold: width ", header.width, ", documents ", header.count);
  RepresentationCollection opened(header.width, static_cast<RepresentationStorage>(header.storage));
  const std::int64_t first = whole_lines(kLine + 8 * header.count);
  check<IoError>(header.count <= bytes / opened.stride_ && bytes == first + header.count * opened.stride_, name,
                 "needs ", header.count, " documents of ", opened.stride_, " bytes; the file has ", bytes, " bytes");
  opened.ids_.resize(static_cast<std::size_t>(header.count));
  if (header.count > 0) {
    std::memcpy(opened.ids_.data(), file.bytes().data() + kLine, opened.ids_.size() * sizeof(std::int64_t));
  }
  check<IoError>(header.fingerprint == fingerprint_of(header, opened.ids_), name, "the ids are damaged");
  for (std::int64_t place = 0; place < header.count; ++place) {
    const bool fresh = opened.places_.emplace(opened.ids_[static_cast<std::size_t>(place)], place).second;
    check<IoError>(fresh, name, "has document ", opened.ids_[static_cast<std::size_t>(place)], " twice");
  }
  opened.file_ = std::move(file);
  opened.mapped_ = header.count;
  opened.mapped_documents_ = opened.file_.private_bytes().data() + first;
  return opened;
}

void RepresentationCollection::check_contents() const {
  const std::int64_t floats = storage_ == RepresentationStorage::f32 ? kernels::packed_symmetric_size(width_) : width_;
  for (std::int64_t place = 0; place < size(); ++place) {
    const auto* values = reinterpret_cast<const float*>(document(place));
    check<IoError>(std::all_of(values, values + floats, [](float x) { return std::isfinite(x); }), kCollection,
                   "document ", ids_[static_cast<std::size_t>(place)], " has numbers that are not finite");
  }
}

}  // namespace tally::ops
