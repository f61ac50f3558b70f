// Files of served LISA models. Shapes are those of the tensors, which the reader has held against the size of the file;
// metadata say only what no shape does.
#include <set>

#include "tally/core/io/json_fields.h"
#include "tally/core/io/safetensors.h"
#include "tally/core/nested_error.h"
#include "tally/nn/serialize.h"
#include "tally/recsys/models/lisa_serving.h"

namespace tally::recsys {
namespace {

constexpr const char* kFormat = "tally.lisa-serving";
constexpr const char* kVersion = "1";
/// Inner products between all codewords of a block take memory by the square of the number of codebooks.
constexpr std::int64_t kMostCodebooks = 1024;

template <class Enum>
Enum choose(JsonFields& fields, const std::string& name) {
  return value_of<Enum>(fields.choice(name, fields.require<std::string>(name), words_of<Enum>()), fields.path_of(name));
}

/// What a block has besides tensors.
Json settings_of(const LisaBlock& block) {
  Json settings = Json::object({{"decay", block.attention.decay},
                                {"window", block.attention.window},
                                {"activation", word_of(block.feed_forward.activation)},
                                {"attention_epsilon", block.attention_norm.epsilon},
                                {"feed_forward_epsilon", block.feed_forward_norm.epsilon}});
  if (block.quantizer) {
    settings.set("similarity", word_of(block.quantizer->options.quantization.similarity));
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

void read_block(Tensors& tensors, const std::string& path, JsonFields settings, const Tensor& codebooks,
                std::int64_t window, bool first, LisaBlock& block, LisaPreparedBlock& prepared) {
  const auto at = [&](const char* name) { return path + "." + name; };
  const std::int64_t d = codebooks.dim(2);
  Tensor block_codebooks = codebooks;
  if (!first) {
    nn::VectorQuantizer quantizer;
    quantizer.options.quantization.similarity = choose<ops::CodewordSimilarity>(settings, "similarity");
    quantizer.options.quantization.residual = settings.require<bool>("residual");
    block_codebooks = tensors.take(at("quantizer.codebooks"), {-1, -1, d});
    quantizer.codebooks = nn::Parameter(block_codebooks);
    if (quantizer.options.quantization.similarity == ops::CodewordSimilarity::bilinear) {
      quantizer.bilinear = nn::Parameter(tensors.take(at("quantizer.bilinear"), {d, d}));
    }
    if (settings.get("codeword_bias", false)) {
      quantizer.bias =
          nn::Parameter(tensors.take(at("quantizer.bias"), {block_codebooks.dim(0) * block_codebooks.dim(1)}));
    }
    prepared.quantizer = quantizer.tables();
    block.quantizer = std::move(quantizer);
  }
  const std::int64_t b = block_codebooks.dim(0), w = block_codebooks.dim(1);
  check<ConfigError>(b <= kMostCodebooks, path, "needs at most ", kMostCodebooks, " codebooks; got ", b);
  prepared.tables = {Var(tensors.take(at("inner"), {b, w, w})), Var(tensors.take(at("values"), {b * w, d}))};
  if (tensors.has(at("attended_positions"))) {
    prepared.attended_positions = Var(tensors.take(at("attended_positions"), {window, d}));
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
  block.feed_forward.activation = choose<ops::Activation>(settings, "activation");
  block.feed_forward.inner.weight = nn::Parameter(tensors.take(at("feed_forward.inner.weight"), {-1, d}));
  const std::int64_t inner = block.feed_forward.inner.weight.shape()[0];
  block.feed_forward.inner.bias = nn::Parameter(tensors.take(at("feed_forward.inner.bias"), {inner}));
  block.feed_forward.outer.weight = nn::Parameter(tensors.take(at("feed_forward.outer.weight"), {d, inner}));
  block.feed_forward.outer.bias = nn::Parameter(tensors.take(at("feed_forward.outer.bias"), {d}));
  settings.finish();
}

}  // namespace

LisaServing::Served LisaServing::read(const std::filesystem::path& path) {
  Tensors tensors(path, load_safetensors(path));
  check<IoError>(tensors.metadata("format") == kFormat && tensors.metadata("format_version") == kVersion, path.string(),
                 "needs the format ", kFormat, " version ", kVersion, "; got ", tensors.metadata("format"), " version ",
                 tensors.metadata("format_version"));
  const Json settings = parse_json(tensors.metadata("settings"), path.string() + " settings");
  JsonFields fields(settings, "settings");
  Served served;
  Lisa& model = served.model;
  LisaPrepared& prepared = served.prepared;
  model.alignment = choose<PositionAlignment>(fields, "alignment");
  model.score_scale = fields.get("score_scale", 1.0);
  check<ConfigError>(model.score_scale > 0, "settings.score_scale", "needs a value above 0");
  const Tensor codebooks = tensors.take("codebooks", {-1, -1, -1});
  prepared.codebooks = Var(codebooks);
  prepared.codes = tensors.take_codes("codes", "codebooks", codebooks, -1);
  prepared.items = BatchItems::all(prepared.codes.dim(0));
  if (tensors.has("target_codebooks")) {
    const Tensor targets = tensors.take("target_codebooks", {-1, -1, codebooks.dim(2)});
    prepared.target_codebooks = Var(targets);
    prepared.target_codes = tensors.take_codes("target_codes", "target_codebooks", targets, prepared.codes.dim(0));
    model.variant = LisaVariant::mini;
  }
  model.positions.table = nn::Parameter(tensors.take("positions.table", {-1, codebooks.dim(2)}));
  model.window = model.positions.table.shape()[0];
  const auto blocks = fields.require<std::vector<Json>>("blocks");
  check<ConfigError>(!blocks.empty(), "settings.blocks", "needs at least one block");
  model.blocks.resize(blocks.size());
  prepared.blocks.resize(blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string name = "blocks." + std::to_string(i);
    read_block(tensors, name, JsonFields(blocks[i], "settings." + name), codebooks, model.window, i == 0,
               model.blocks[i], prepared.blocks[i]);
  }
  fields.finish();
  tensors.finish();
  return served;
}

std::string LisaServing::settings() const {
  Json blocks = Json::array();
  for (const LisaBlock& block : model().blocks) blocks.push_back(settings_of(block));
  return Json::object(
             {{"alignment", word_of(model().alignment)}, {"score_scale", model().score_scale}, {"blocks", blocks}})
      .dump();
}

void LisaServing::save(const std::filesystem::path& path, const std::map<std::string, std::string>& metadata) const {
  std::map<std::string, std::string> all = metadata;
  all["format"] = kFormat;
  all["format_version"] = kVersion;
  all["settings"] = settings();
  save_safetensors(path, tensors(), all);
}

std::map<std::string, Tensor> LisaServing::tensors() const {
  std::map<std::string, Tensor> all{{"codes", prepared().codes}, {"codebooks", prepared().codebooks->value()}};
  if (prepared().target_codebooks) {
    all["target_codes"] = prepared().target_codes;
    all["target_codebooks"] = prepared().target_codebooks->value();
  }
  nn::walk("", model(), [&](const std::string& name, const auto& field) { all[name] = field.value(); });
  for (std::size_t b = 0; b < prepared().blocks.size(); ++b) {
    const LisaPreparedBlock& block = prepared().blocks[b];
    const std::string path = "blocks." + std::to_string(b);
    all[path + ".inner"] = block.tables.inner.value();
    all[path + ".values"] = block.tables.values.value();
    if (block.attended_positions) all[path + ".attended_positions"] = block.attended_positions->value();
  }
  return all;
}

LisaServing LisaServing::load(const std::filesystem::path& path) {
  try {
    return LisaServing(read(path));
  } catch (const ConfigError& error) {
    fail<IoError>(path.string(), placed_by(error));
  }
}

}  // namespace tally::recsys
