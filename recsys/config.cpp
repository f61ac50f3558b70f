#include "tally/recsys/config.h"

#include <algorithm>

#include "tally/core/json_fields.h"
#include "tally/nn/attention_kinds.h"
#include "tally/ops/codes.h"
#include "tally/recsys/data/file_forms.h"
#include "tally/recsys/data/filters.h"
#include "tally/recsys/protocol.h"

namespace tally::recsys {
namespace {

std::vector<std::string> format_choices() {
  std::vector<std::string> choices = file_form_names();
  choices.insert(choices.begin(), "auto");
  return choices;
}

/// The attentions that a recommender may use: those that do not see what they are to predict.
const std::vector<std::string>& causal_attentions() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> causal;
    for (const nn::AttentionKindEntry& entry : nn::attention_kinds()) {
      if (entry.causal) causal.push_back(entry.name);
    }
    return causal;
  }();
  return names;
}

/// Lists the members of each section once, for reading and for writing: `visit(name, member)`, and for a choice
/// `visit(name, member, choices)`.
template <class Config, class Visit>
void data_fields(Config& c, Visit&& visit) {
  visit("path", c.path);
  visit("format", c.format, format_choices());
  visit("separator", c.separator);
  visit("columns", c.columns);
  visit("USER_ID_FIELD", c.user_column);
  visit("ITEM_ID_FIELD", c.item_column);
  visit("RATING_FIELD", c.rating_column);
  visit("TIME_FIELD", c.order_column);
  visit("tie_rule", c.tie_rule, std::vector<std::string>{"file_order", "item_id", "random"});
  visit("tie_seed", c.tie_seed);
  visit("rm_dup_inter", c.duplicates, std::vector<std::string>{"keep", "first", "last"});
  visit("min_rating", c.min_rating);
  visit("user_inter_num_interval", c.user_inter_num_interval);
  visit("item_inter_num_interval", c.item_inter_num_interval);
  visit("core", c.core, std::vector<std::string>{"iterative", "one_pass"});
  visit("bad_rows", c.bad_rows, std::vector<std::string>{"error", "skip"});
  visit("titles", c.titles);
  visit("split", c.split, std::vector<std::string>{"leave_one_out", "leave_last_out"});
  visit("min_length", c.min_length);
  visit("short_users", c.short_users, std::vector<std::string>{"train", "drop"});
}

template <class Config, class Visit>
void model_fields(Config& c, Visit&& visit) {
  visit("name", c.name, std::vector<std::string>{"gru4rec", "sasrec", "lisa"});
  visit("hidden_size", c.hidden_size);
  visit("n_layers", c.n_layers);
  visit("n_heads", c.n_heads);
  visit("inner_size", c.inner_size);
  visit("MAX_ITEM_LIST_LENGTH", c.max_item_list_length);
  visit("hidden_dropout_prob", c.hidden_dropout_prob);
  visit("attn_dropout_prob", c.attn_dropout_prob);
  visit("hidden_act", c.hidden_act, std::vector<std::string>{"relu", "gelu", "silu"});
  visit("norm", c.norm, std::vector<std::string>{"sasrec", "pre", "post"});
  visit("position_alignment", c.position_alignment, std::vector<std::string>{"start", "end"});
  visit("initializer_range", c.initializer_range);
  visit("layer_norm_eps", c.layer_norm_eps);
  visit("tie_embeddings", c.tie_embeddings);
  visit("attention", c.attention, causal_attentions());
  visit("attention_block", c.attention_block);
  visit("random_features", c.random_features);
  visit("lsh_buckets", c.lsh_buckets);
  visit("lsh_rounds", c.lsh_rounds);
  visit("lisa_variant", c.lisa_variant, std::vector<std::string>{"base", "soft", "mini"});
  visit("codebooks", c.codebooks);
  visit("codewords", c.codewords);
  visit("target_codewords", c.target_codewords);
  visit("quantized", c.quantized, std::vector<std::string>{"all", "histories", "attention"});
  visit("similarity", c.similarity, std::vector<std::string>{"bilinear", "dot", "squared_distance"});
  visit("temperature", c.temperature);
  visit("codeword_bias", c.codeword_bias);
  visit("residual_quantization", c.residual_quantization);
  visit("codebook_init", c.codebook_init, std::vector<std::string>{"xavier", "kmeans"});
  visit("counts_decay", c.counts_decay);
  visit("learn_decay", c.learn_decay);
  visit("soft_query", c.soft_query);
  visit("counts_window", c.counts_window);
  visit("position_codebooks", c.position_codebooks);
  visit("position_codewords", c.position_codewords);
  visit("score_scale", c.score_scale);
  visit("commitment_weight", c.commitment_weight);
}

template <class Config, class Visit>
void train_fields(Config& c, Visit&& visit) {
  visit("epochs", c.epochs);
  visit("train_batch_size", c.train_batch_size);
  visit("shard_tokens", c.shard_tokens);
  visit("learner", c.learner, std::vector<std::string>{"adam", "sgd", "adagrad"});
  visit("learning_rate", c.learning_rate);
  visit("beta1", c.beta1);
  visit("beta2", c.beta2);
  visit("weight_decay", c.weight_decay);
  visit("clip_grad_norm", c.clip_grad_norm);
  visit("warmup_steps", c.warmup_steps);
  visit("decay", c.decay, std::vector<std::string>{"constant", "cosine"});
  visit("train_samples", c.train_samples, std::vector<std::string>{"shifted", "prefix", "window", "pieces"});
  visit("prefixes_per_user", c.prefixes_per_user);
  visit("window_stride", c.window_stride);
  visit("loss_type", c.loss_type, std::vector<std::string>{"CE", "BCE", "gBCE", "SSM"});
  visit("negatives", c.negatives);
  visit("negative_distribution", c.negative_distribution, std::vector<std::string>{"uniform", "popularity"});
  visit("negative_alpha", c.negative_alpha);
  visit("negative_scope", c.negative_scope, std::vector<std::string>{"position", "sequence", "batch"});
  visit("negative_exclude", c.negative_exclude, std::vector<std::string>{"none", "target", "history"});
  visit("negative_replacement", c.negative_replacement);
  visit("logq", c.logq);
  visit("gbce_t", c.gbce_t);
  visit("bce_average", c.bce_average, std::vector<std::string>{"none", "samples", "negatives"});
  visit("eval_step", c.eval_step);
  visit("stopping_step", c.stopping_step);
  visit("valid_metric", c.valid_metric);
  visit("checkpoint_steps", c.checkpoint_steps);
  visit("seed", c.seed);
  visit("start_from", c.start_from);
  visit("flush_denormals", c.flush_denormals);
  visit("detect_anomaly", c.detect_anomaly);
}

template <class Config, class Visit>
void evaluation_fields(Config& c, Visit&& visit) {
  visit("topk", c.topk);
  visit("filter_seen", c.filter_seen, std::vector<std::string>{"none", "full"});
  visit("rank_ties", c.rank_ties, std::vector<std::string>{"mean", "pessimistic", "optimistic"});
  visit("candidates", c.candidates, std::vector<std::string>{"all", "train"});
  visit("mode", c.mode);
  visit("negatives_exclude", c.negatives_exclude, std::vector<std::string>{"all", "history", "training"});
  visit("negatives_replacement", c.negatives_replacement);
  visit("sampling_seed", c.sampling_seed);
  visit("valid_users", c.valid_users);
  visit("test_users", c.test_users);
}

/// Calls visit(section name, fields function, section) for each section.
template <class Config, class Visit>
void sections(Config& c, Visit&& visit) {
  visit(
      "data", [](auto& section, auto&& v) { data_fields(section, v); }, c.data);
  visit(
      "model", [](auto& section, auto&& v) { model_fields(section, v); }, c.model);
  visit(
      "train", [](auto& section, auto&& v) { train_fields(section, v); }, c.train);
  visit(
      "evaluation", [](auto& section, auto&& v) { evaluation_fields(section, v); }, c.evaluation);
}

struct ReadField {
  JsonFields& fields;
  template <class T>
  void operator()(const char* name, T& member) {
    member = fields.get<T>(name, member);
  }
  template <class T>
  void operator()(const char* name, std::optional<T>& member) {
    if (fields.has(name)) member = fields.find<T>(name);
  }
  void operator()(const char* name, std::string& member, const std::vector<std::string>& choices) {
    member = fields.choice(name, member, choices);
  }
};

struct WriteField {
  Json& json;
  template <class T>
  void operator()(const char* name, const T& member) {
    json.set(name, Json(member));
  }
  template <class T>
  void operator()(const char* name, const std::optional<T>& member) {
    json.set(name, member ? Json(*member) : Json());
  }
  void operator()(const char* name, const std::string& member, const std::vector<std::string>&) {
    json.set(name, Json(member));
  }
};

/// What the loss and its negatives need of one another.
void check_loss(const TrainConfig& train) {
  const bool binary = train.loss_type == "BCE" || train.loss_type == "gBCE", softmax = train.loss_type == "SSM";
  check<ConfigError>(train.prefixes_per_user >= 0, "train.prefixes_per_user", "needs at least 0; got ",
                     train.prefixes_per_user);
  check<ConfigError>(train.window_stride >= 0, "train.window_stride", "needs at least 0; got ", train.window_stride);
  check<ConfigError>(train.negatives >= 1, "train.negatives", "needs at least 1; got ", train.negatives);
  check<ConfigError>(train.gbce_t >= 0 && train.gbce_t <= 1, "train.gbce_t", "needs a value in [0, 1]; got ",
                     train.gbce_t);
  check<ConfigError>(!train.logq || softmax, "train.logq", "needs loss_type SSM; got ", train.loss_type);
  check<ConfigError>(train.bce_average == "none" || binary, "train.bce_average", "needs loss_type BCE or gBCE; got ",
                     train.loss_type);
  check<ConfigError>(train.loss_type != "gBCE" || train.negative_distribution == "uniform",
                     "train.negative_distribution", "needs uniform negatives for gBCE; got ",
                     train.negative_distribution);
  check<ConfigError>(train.negative_exclude != "target" || train.negative_scope == "position", "train.negative_exclude",
                     "needs negative_scope position to exclude the target; got ", train.negative_scope);
  check<ConfigError>(train.negative_exclude != "history" || train.negative_scope != "batch", "train.negative_exclude",
                     "needs negative_scope position or sequence to exclude the history; got batch");
  check<ConfigError>(train.negative_replacement || (softmax && train.negative_scope != "position"),
                     "train.negative_replacement",
                     "can be false with loss_type SSM and negative_scope sequence or "
                     "batch alone; got ",
                     train.loss_type, " and ", train.negative_scope);
}

void check_interval(const char* key, const std::string& text) {
  try {
    CountIntervals::parse(text);
  } catch (const ValueError&) {
    fail<ConfigError>(key, "needs counts such as \"[5,inf)\" or \"(3,100]\"; got \"", text, "\"");
  }
}

void check_domain(const RunConfig& config) {
  const auto at_least = [](const char* key, auto value, auto least) {
    check<ConfigError>(value >= least, key, "needs at least ", least, "; got ", value);
  };
  const auto rate = [](const char* key, double value) {
    check<ConfigError>(value >= 0 && value < 1, key, "needs a value in [0, 1); got ", value);
  };
  const ModelConfig& model = config.model;
  at_least("model.hidden_size", model.hidden_size, 1);
  at_least("model.n_layers", model.n_layers, 1);
  at_least("model.n_heads", model.n_heads, 1);
  at_least("model.MAX_ITEM_LIST_LENGTH", model.max_item_list_length, 1);
  at_least("model.inner_size", model.inner_size, 0);
  check<ConfigError>(model.hidden_size % model.n_heads == 0, "model.hidden_size", "needs a multiple of n_heads ",
                     model.n_heads, "; got ", model.hidden_size);
  rate("model.hidden_dropout_prob", model.hidden_dropout_prob);
  rate("model.attn_dropout_prob", model.attn_dropout_prob);
  check<ConfigError>(model.initializer_range > 0, "model.initializer_range", "needs a value above 0; got ",
                     model.initializer_range);
  check<ConfigError>(model.layer_norm_eps > 0, "model.layer_norm_eps", "needs a value above 0; got ",
                     model.layer_norm_eps);
  at_least("model.attention_block", model.attention_block, 1);
  at_least("model.random_features", model.random_features, 1);
  at_least("model.lsh_buckets", model.lsh_buckets, 2);
  check<ConfigError>(model.lsh_buckets % 2 == 0, "model.lsh_buckets", "needs an even number; got ", model.lsh_buckets);
  at_least("model.lsh_rounds", model.lsh_rounds, 1);
  at_least("model.codebooks", model.codebooks, 1);
  at_least("model.codewords", model.codewords, 1);
  at_least("model.target_codewords", model.target_codewords, 1);
  check<ConfigError>(model.quantized == "all" || model.lisa_variant != "mini", "model.quantized",
                     "needs 'all' in lisa_variant mini, which has a quantizer for its targets; got ", model.quantized);
  check<ConfigError>(ops::detail::fits_temperature(model.temperature), "model.temperature",
                     "needs a finite value above 0, with a finite inverse in f32; got ", model.temperature);
  at_least("model.counts_decay", model.counts_decay, 0);
  check<ConfigError>(model.counts_decay > 0 || !model.learn_decay, "model.learn_decay",
                     "needs a counts_decay above 0 to begin from");
  at_least("model.counts_window", model.counts_window, 0);
  check<ConfigError>(!model.soft_query || (model.lisa_variant == "soft" && model.counts_window == 0),
                     "model.soft_query", "needs lisa_variant soft and no counts_window; got ", model.lisa_variant,
                     " and ", model.counts_window);
  at_least("model.position_codebooks", model.position_codebooks, 0);
  at_least("model.position_codewords", model.position_codewords, 1);
  check<ConfigError>(model.position_codebooks == 0 || model.position_alignment == "start", "model.position_codebooks",
                     "needs position_alignment start; got ", model.position_alignment);
  check<ConfigError>(model.score_scale > 0, "model.score_scale", "needs a value above 0; got ", model.score_scale);
  at_least("model.commitment_weight", model.commitment_weight, 0);
  const TrainConfig& train = config.train;
  at_least("train.epochs", train.epochs, 1);
  at_least("train.train_batch_size", train.train_batch_size, 1);
  at_least("train.shard_tokens", train.shard_tokens, 1);
  at_least("train.eval_step", train.eval_step, 1);
  at_least("train.stopping_step", train.stopping_step, 0);
  at_least("train.checkpoint_steps", train.checkpoint_steps, 0);
  at_least("train.warmup_steps", train.warmup_steps, 0);
  at_least("train.seed", train.seed, 0);
  check<ConfigError>(train.learning_rate > 0, "train.learning_rate", "needs a value above 0; got ",
                     train.learning_rate);
  rate("train.beta1", train.beta1);
  rate("train.beta2", train.beta2);
  at_least("train.weight_decay", train.weight_decay, 0);
  check<ConfigError>(train.weight_decay == 0 || train.learner != "adagrad", "train.weight_decay",
                     "needs learner adam or sgd; adagrad has none");
  at_least("train.clip_grad_norm", train.clip_grad_norm, 0);
  check_loss(train);
  check<ConfigError>(!config.data.path.empty(), "data.path", "is missing; it names the file of interactions");
  at_least("data.tie_seed", config.data.tie_seed, 0);
  check_interval("data.user_inter_num_interval", config.data.user_inter_num_interval);
  check_interval("data.item_inter_num_interval", config.data.item_inter_num_interval);
  check<ConfigError>(!config.data.min_rating || !config.data.rating_column.empty(), "data.min_rating",
                     "needs data.RATING_FIELD, the column that holds ratings");
  at_least("data.min_length", config.data.min_length, config.data.split == "leave_one_out" ? 3 : 2);
  at_least("evaluation.sampling_seed", config.evaluation.sampling_seed, 0);
  at_least("evaluation.valid_users", config.evaluation.valid_users, 0);
  at_least("evaluation.test_users", config.evaluation.test_users, 0);
  parse_mode(config.evaluation.mode);
  check<ConfigError>(!config.evaluation.topk.empty(), "evaluation.topk", "needs at least one K");
  for (const std::int64_t k : config.evaluation.topk) at_least("evaluation.topk", k, 1);
  parse_metric(train.valid_metric, config.evaluation);
}

}  // namespace

DataConfig resolved(DataConfig data) {
  if (data.format == "auto") data.format = file_form_of(data.path).name;
  if (data.order_column == "auto") {
    const bool timed = std::find(data.columns.begin(), data.columns.end(), "timestamp") != data.columns.end();
    data.order_column = data.columns.empty() ? file_form(data.format).order_column : timed ? "timestamp" : "";
  }
  return data;
}

RunConfig parse_config(const Json& json) {
  RunConfig config;
  check<ConfigError>(json.is(Json::Kind::object), "config", "needs a JSON object");
  JsonFields top(json);
  config.protocol = top.get("protocol", config.protocol);
  if (!config.protocol.empty()) find_protocol(config.protocol).apply(config);
  sections(config, [&](const char* name, auto&& list, auto& section) {
    JsonFields fields = top.child(name);
    ReadField read{fields};
    list(section, read);
    fields.finish();
  });
  config.output = top.get("output", config.output);
  config.keep_histories = top.get("keep_histories", config.keep_histories);
  config.show_user = top.get("show_user", config.show_user);
  top.finish();
  // Before null stood for it, no least rating was written as 0; where no ratings are read it can mean nothing else.
  if (config.data.rating_column.empty() && config.data.min_rating == 0.0) config.data.min_rating.reset();
  check_domain(config);
  config.data = resolved(config.data);
  return config;
}

Json to_json(const RunConfig& config) {
  Json json = Json::object({{"protocol", config.protocol}});
  sections(config, [&](const char* name, auto&& list, auto& section) {
    Json object = Json::object();
    WriteField write{object};
    list(section, write);
    json.set(name, std::move(object));
  });
  json.set("output", config.output);
  json.set("keep_histories", config.keep_histories);
  json.set("show_user", config.show_user);
  return json;
}

std::vector<std::pair<std::string, Json>> flattened(const Json& config) {
  std::vector<std::pair<std::string, Json>> values;
  for (const auto& [name, value] : config.members()) {
    if (!value.is(Json::Kind::object)) {
      values.emplace_back(name, value);
      continue;
    }
    for (auto& [inner, inner_value] : flattened(value)) values.emplace_back(name + '.' + inner, inner_value);
  }
  return values;
}

std::optional<SamplingMode> parse_mode(const std::string& mode) {
  if (mode == "full") return std::nullopt;
  const bool popularity = mode.starts_with("pop");
  if (popularity || mode.starts_with("uni")) {
    const std::string digits = mode.substr(3);
    const bool is_number =
        !digits.empty() && digits.size() <= 9 && digits.find_first_not_of("0123456789") == std::string::npos;
    if (is_number && std::stoll(digits) >= 1) return SamplingMode{popularity, std::stoll(digits)};
  }
  fail<ConfigError>("evaluation.mode", "needs full, uniN or popN (uni100: among 100 uniform negatives); got \"", mode,
                    "\"");
}

MetricName parse_metric(const std::string& name, const EvaluationConfig& evaluation) {
  const std::size_t at = name.find('@');
  const std::string kind = name.substr(0, at);
  if (at != std::string::npos && (kind == "NDCG" || kind == "HR" || kind == "Recall" || kind == "MRR")) {
    for (const std::int64_t k : evaluation.topk) {
      if (name.substr(at + 1) == std::to_string(k)) return {kind, k};
    }
  }
  fail<ConfigError>("train.valid_metric", "needs NDCG@K, HR@K, Recall@K or MRR@K with a K of evaluation.topk; got \"",
                    name, "\"");
}

namespace {

/// The dotted path of a key: itself, or the one place where a config has it.
std::string resolve_key(const std::string& key, const Json& defaults) {
  if (key.find('.') != std::string::npos) return key;
  std::vector<std::string> homes, known;
  for (const auto& [name, value] : defaults.members()) {
    if (!value.is(Json::Kind::object)) {
      known.push_back(name);
      if (name == key) homes.push_back(name);
      continue;
    }
    check<ConfigError>(name != key, "--" + key, "is a section; name a key in it, e.g. --", name, '.',
                       value.members().front().name);
    for (const auto& [member, unused] : value.members()) {
      known.push_back(member);
      if (member == key) homes.push_back(name + '.' + member);
    }
  }
  if (homes.empty()) {
    const std::string nearest = nearest_name(key, known);
    fail<ConfigError>("--" + key, "is no key of a config",
                      nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
  }
  check<ConfigError>(homes.size() == 1, "--" + key, "stands in several sections; write the section too, e.g. --",
                     homes[0]);
  return homes[0];
}

/// JSON when it is JSON, else text: the reader of the config says which kind of value the key needs.
Json read_value(const std::string& text) {
  try {
    return parse_json(text);
  } catch (const IoError&) {
    return Json(text);
  }
}

}  // namespace

void apply_override(Json& config, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  check<ConfigError>(equals != std::string::npos && equals > 0, "--" + assignment, "needs the form --key=value");
  const Json defaults = to_json(RunConfig{});
  const std::string key = resolve_key(assignment.substr(0, equals), defaults);
  const std::string text = assignment.substr(equals + 1);
  const std::size_t dot = key.find('.');
  const Json* known = defaults.find(key.substr(0, dot));
  if (known != nullptr && dot != std::string::npos) known = known->find(key.substr(dot + 1));
  // What is text in a config is text here, quotes or not: a user id of 42, say.
  const bool is_text = known != nullptr && known->is(Json::Kind::string);
  try {
    config.set_at(key, is_text ? Json(text) : read_value(text));
  } catch (const ValueError&) {
    fail<ConfigError>("--" + key, "cannot be set: what stands before its last dot is no section of the config");
  }
}

namespace {

/// Makes the data paths of a config relative to where it stands.
void anchor_paths(Json& json, const std::filesystem::path& directory) {
  for (const char* name : {"path", "titles"}) {
    const Json* data = json.find("data");
    const Json* file = data == nullptr ? nullptr : data->find(name);
    if (file == nullptr || !file->is(Json::Kind::string) || file->as_string().empty()) continue;
    const std::filesystem::path given = file->as_string();
    if (given.is_relative()) json.set_at(std::string("data.") + name, (directory / given).lexically_normal().string());
  }
}

Json read_config_file(const std::filesystem::path& path) {
  Json json;
  try {
    json = read_json(path);
  } catch (const IoError& error) {
    throw ConfigError(error.what());
  }
  check<ConfigError>(json.is(Json::Kind::object), path.string(), "needs a JSON object {...} of sections; got ",
                     name_of(json.kind()));
  anchor_paths(json, path.parent_path());
  return json;
}

/// The value at a dotted path, or null.
const Json* find_at(const Json& json, const std::string& key) {
  const std::size_t dot = key.find('.');
  const Json* here = json.find(key.substr(0, dot));
  return here == nullptr || dot == std::string::npos ? here : find_at(*here, key.substr(dot + 1));
}

}  // namespace

RunConfig load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  Json json = read_config_file(path);
  for (const std::string& assignment : overrides) apply_override(json, assignment);
  return parse_config(json);
}

RunConfig load_config(Json json, const std::filesystem::path& directory, const std::vector<std::string>& overrides) {
  anchor_paths(json, directory);
  for (const std::string& assignment : overrides) apply_override(json, assignment);
  return parse_config(json);
}

std::vector<ConfigValue> explain_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  const Json file = read_config_file(path);
  Json all = file;
  Json command_line = Json::object();
  for (const std::string& assignment : overrides) {
    apply_override(all, assignment);
    apply_override(command_line, assignment);
  }
  const RunConfig config = parse_config(all);
  const std::vector<std::string>& decided = protocol_keys();
  std::vector<ConfigValue> values;
  for (auto& [key, value] : flattened(to_json(config))) {
    std::string origin = "default";
    if (find_at(command_line, key) != nullptr) {
      origin = "--" + key;
    } else if (find_at(file, key) != nullptr) {
      origin = path.string();
    } else if (!config.protocol.empty() && std::find(decided.begin(), decided.end(), key) != decided.end()) {
      origin = "protocol " + config.protocol;
    }
    values.push_back({key, std::move(value), std::move(origin)});
  }
  return values;
}

}  // namespace tally::recsys
