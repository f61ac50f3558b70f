// Files of served LISA models. Shapes are those of the tensors, which the reader has held against the size of the file;
// metadata say only what no shape does.
#include <set>

#include "tally/core/json_fields.h"
#include "tally/core/safetensors.h"
#include "tally/nn/serialize.h"
#include "tally/recsys/models/lisa_serving.h"

namespace tally::recsys {
namespace {

constexpr const char* kFormat = "tally.lisa-serving";
constexpr const char* kVersion = "1";
/// Inner products between all codewords of a block take memory by the square of the number of codebooks.
constexpr std::int64_t kMostCodebooks = 1024;

const std::vector<std::string> kActivations{"none", "relu", "gelu", "silu"};
const std::vector<std::string> kSimilarities{"bilinear", "dot", "squared_distance"};
const std::vector<std::string> kAlignments{"start", "end"};

static_assert(static_cast<int>(ops::Activation::none) == 0 && static_cast<int>(ops::Activation::relu) == 1 &&
              static_cast<int>(ops::Activation::gelu) == 2 && static_cast<int>(ops::Activation::silu) == 3);
static_assert(static_cast<int>(ops::CodewordSimilarity::bilinear) == 0 &&
              static_cast<int>(ops::CodewordSimilarity::dot) == 1 &&
              static_cast<int>(ops::CodewordSimilarity::squared_distance) == 2);
static_assert(static_cast<int>(PositionAlignment::start) == 0 && static_cast<int>(PositionAlignment::end) == 1);

template <class Enum>
Json word(const std::vector<std::string>& words, Enum value) {
  return words.at(static_cast<std::size_t>(value));
}

template <class Enum>
Enum choose(JsonFields& fields, const std::string& name, const std::vector<std::string>& words) {
  const std::string chosen = fields.choice(name, fields.require<std::string>(name), words);
  return static_cast<Enum>(std::find(words.begin(), words.end(), chosen) - words.begin());
}

/// What a block has besides tensors.
Json settings_of(const LisaBlock& block) {
  Json settings = Json::object({{"decay", block.attention.decay},
                                {"window", block.attention.window},
                                {"activation", word(kActivations, block.feed_forward.activation)},
                                {"attention_epsilon", block.attention_norm.epsilon},
                                {"feed_forward_epsilon", block.feed_forward_norm.epsilon}});
  if (block.quantizer) {
    settings.set("similarity", word(kSimilarities, block.quantizer->options.quantization.similarity));
    settings.set("residual", block.quantizer->options.quantization.residual);
    settings.set("codeword_bias", block.quantizer->bias.defined());
  }
  return settings;
}

/// The tensors of a file, each to be taken once.
class Tensors {
 public:
  Tensors(const std::filesystem::path& path, TensorFile file) : path_(path.string()), file_(std::move(file)) {}

  bool has(const std::string& name) const { return file_.tensors.contains(name); }
  /// Sizes of -1 fit any that is at least 1.
  Tensor take(const std::string& name, std::initializer_list<std::int64_t> sizes, DType dtype = DType::f32) {
    const auto found = file_.tensors.find(name);
    check<IoError>(found != file_.tensors.end(), path_, "needs a tensor '", name, "'");
    const Tensor tensor = found->second;
    bool fits = tensor.dtype() == dtype && tensor.rank() == static_cast<int>(sizes.size());
    int dim = 0;
    std::string wanted;
    for (const std::int64_t size : sizes) {
      fits = fits && (size == -1 ? tensor.dim(dim) >= 1 : tensor.dim(dim) == size);
      wanted += (dim++ == 0 ? "[" : ", ") + (size == -1 ? "at least 1" : std::to_string(size));
    }
    check<IoError>(fits, path_, "needs ", name, " of ", dtype, ' ', wanted, "]; got ", tensor.dtype(), ' ',
                   tensor.shape());
    check<IoError>(all_finite(tensor), path_, "needs finite numbers; ", name, " has others");
    file_.tensors.erase(found);
    return tensor;
  }
  Tensor take_codes(const std::string& name, const std::string& of, const Tensor& codebooks, std::int64_t items) {
    const std::int64_t words = codebooks.dim(1);
    const Tensor codes = take(name, {items, codebooks.dim(0)}, words <= 256 ? DType::u8 : DType::i32);
    for (const double code : codes.to_doubles()) {
      check<IoError>(code >= 0 && code < static_cast<double>(words), path_, "needs ", name, " in [0, ", words, ") as ",
                     of, " says; got ", code);
    }
    return codes;
  }
  const std::string& metadata(const std::string& name) const {
    const auto found = file_.metadata.find(name);
    check<IoError>(found != file_.metadata.end(), path_, "is no served LISA model: it has no metadata '", name, "'");
    return found->second;
  }
  void finish() const {
    check<IoError>(file_.tensors.empty(), path_, "holds a tensor that does not belong there: '",
                   file_.tensors.empty() ? "" : file_.tensors.begin()->first, "'");
  }

 private:
  std::string path_;
  TensorFile file_;
};

LisaServingBlock read_block(Tensors& tensors, const std::string& path, JsonFields settings, const Tensor& codebooks,
                            std::int64_t window, bool first) {
  const auto at = [&](const char* name) { return path + "." + name; };
  const std::int64_t d = codebooks.dim(2);
  LisaServingBlock result;
  LisaBlock& block = result.block;
  Tensor own = codebooks;
  if (!first) {
    nn::VectorQuantizer quantizer;
    quantizer.options.quantization.similarity = choose<ops::CodewordSimilarity>(settings, "similarity", kSimilarities);
    quantizer.options.quantization.residual = settings.require<bool>("residual");
    own = tensors.take(at("quantizer.codebooks"), {-1, -1, d});
    quantizer.codebooks = nn::Parameter(own);
    if (quantizer.options.quantization.similarity == ops::CodewordSimilarity::bilinear) {
      quantizer.bilinear = nn::Parameter(tensors.take(at("quantizer.bilinear"), {d, d}));
    }
    if (settings.get("codeword_bias", false)) {
      quantizer.bias = nn::Parameter(tensors.take(at("quantizer.bias"), {own.dim(0) * own.dim(1)}));
    }
    block.quantizer = std::move(quantizer);
  }
  const std::int64_t b = own.dim(0), w = own.dim(1);
  check<ConfigError>(b <= kMostCodebooks, path, "needs at most ", kMostCodebooks, " codebooks; got ", b);
  result.inner = nn::Buffer(tensors.take(at("inner"), {b, w, w}));
  result.values = nn::Buffer(tensors.take(at("values"), {b * w, d}));
  if (tensors.has(at("attended_positions"))) {
    result.attended_positions = nn::Buffer(tensors.take(at("attended_positions"), {window, d}));
  }
  block.attention.decay = settings.require<double>("decay");
  block.attention.window = settings.require<std::int64_t>("window");
  check<ConfigError>(block.attention.decay >= 0 && block.attention.window >= 0, settings.path(),
                     "needs a decay and a window of at least 0");
  const auto norm = [&](const char* name, const char* epsilon) {
    nn::LayerNorm result_norm;
    result_norm.weight = nn::Parameter(tensors.take(path + "." + name + ".weight", {d}));
    result_norm.bias = nn::Parameter(tensors.take(path + "." + name + ".bias", {d}));
    result_norm.epsilon = settings.require<double>(epsilon);
    return result_norm;
  };
  block.attention_norm = norm("attention_norm", "attention_epsilon");
  block.feed_forward_norm = norm("feed_forward_norm", "feed_forward_epsilon");
  block.feed_forward.activation = choose<ops::Activation>(settings, "activation", kActivations);
  block.feed_forward.inner.weight = nn::Parameter(tensors.take(at("feed_forward.inner.weight"), {-1, d}));
  const std::int64_t inner = block.feed_forward.inner.weight.shape()[0];
  block.feed_forward.inner.bias = nn::Parameter(tensors.take(at("feed_forward.inner.bias"), {inner}));
  block.feed_forward.outer.weight = nn::Parameter(tensors.take(at("feed_forward.outer.weight"), {d, inner}));
  block.feed_forward.outer.bias = nn::Parameter(tensors.take(at("feed_forward.outer.bias"), {d}));
  settings.finish();
  return result;
}

LisaServingWeights read(const std::filesystem::path& path) {
  Tensors tensors(path, load_safetensors(path));
  check<IoError>(tensors.metadata("format") == kFormat && tensors.metadata("format_version") == kVersion, path.string(),
                 "needs the format ", kFormat, " version ", kVersion, "; got ", tensors.metadata("format"), " version ",
                 tensors.metadata("format_version"));
  const Json settings = parse_json(tensors.metadata("settings"), path.string() + " settings");
  JsonFields fields(settings, "settings");
  LisaServingWeights weights;
  weights.alignment = choose<PositionAlignment>(fields, "alignment", kAlignments);
  weights.score_scale = fields.get("score_scale", 1.0);
  check<ConfigError>(weights.score_scale > 0, "settings.score_scale", "needs a value above 0");
  const Tensor codebooks = tensors.take("codebooks", {-1, -1, -1});
  weights.codebooks = nn::Buffer(codebooks);
  weights.codes = nn::Buffer(tensors.take_codes("codes", "codebooks", codebooks, -1));
  if (tensors.has("target_codebooks")) {
    const Tensor targets = tensors.take("target_codebooks", {-1, -1, codebooks.dim(2)});
    weights.target_codebooks = nn::Buffer(targets);
    weights.target_codes =
        nn::Buffer(tensors.take_codes("target_codes", "target_codebooks", targets, weights.codes.value().dim(0)));
  }
  weights.positions.table = nn::Parameter(tensors.take("positions.table", {-1, codebooks.dim(2)}));
  const auto blocks = fields.require<std::vector<Json>>("blocks");
  check<ConfigError>(!blocks.empty(), "settings.blocks", "needs at least one block");
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string name = "blocks." + std::to_string(i);
    weights.blocks.push_back(read_block(tensors, name, JsonFields(blocks[i], "settings." + name), codebooks,
                                        weights.positions.table.shape()[0], i == 0));
  }
  fields.finish();
  tensors.finish();
  return weights;
}

}  // namespace

std::string LisaServing::settings() const {
  Json blocks = Json::array();
  for (const LisaServingBlock& block : weights_->blocks) blocks.push_back(settings_of(block.block));
  return Json::object({{"alignment", word(kAlignments, weights_->alignment)},
                       {"score_scale", weights_->score_scale},
                       {"blocks", blocks}})
      .dump();
}

void LisaServing::save(const std::filesystem::path& path, const std::map<std::string, std::string>& metadata) const {
  std::map<std::string, std::string> all = metadata;
  all["format"] = kFormat;
  all["format_version"] = kVersion;
  all["settings"] = settings();
  std::map<std::string, Tensor> tensors;
  nn::walk("", *weights_, [&](const std::string& name, const auto& field) { tensors[name] = field.value(); });
  save_safetensors(path, tensors, all);
}

LisaServing LisaServing::load(const std::filesystem::path& path) {
  try {
    return LisaServing(read(path));
  } catch (const ConfigError& error) {
    fail<IoError>(path.string(), error.what());
  }
}

}  // namespace tally::recsys
