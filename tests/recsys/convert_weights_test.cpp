#include "tally/recsys/run/convert_weights.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/io/safetensors.h"
#include "tally/recsys/config/config.h"
#include "tally/recsys/models/neural_ranker.h"

namespace convert_weights_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

/// A golden file of tests/golden/make_pytorch_golden.py: weights, histories and scores.
struct Golden {
  explicit Golden(const std::string& name) {
    for (const auto& [path, tensor] :
         load_safetensors(TALLY_SOURCE_DIR "/tests/golden/pytorch_" + name + ".safetensors").tensors) {
      const std::size_t slash = path.find('/');
      (slash == std::string::npos     ? weights[path]
       : path.starts_with("history/") ? histories[path.substr(slash)]
                                      : scores[path.substr(slash)]) = tensor;
    }
    const std::string file = name.starts_with("recbole_") ? "recbole-" + name.substr(8) : "pytorch-" + name;
    map = read_json(TALLY_SOURCE_DIR "/examples/weights/" + file + ".json");
    rows.emplace_back("[PAD]");
    for (int i = 1; i <= 11; ++i) rows.push_back("i" + std::to_string(i));
    // The model's own order of items is another.
    for (int i = 11; i >= 1; --i) items.add("i" + std::to_string(i));
  }

  std::map<std::string, Tensor> weights, histories, scores;
  Json map;
  std::vector<std::string> rows;
  IdMap items;
};

/// In the settings that the golden file's model has.
std::unique_ptr<SequenceModel> model_of(const std::string& name, const IdMap& items) {
  const bool recbole = name.starts_with("recbole_"), sasrec = name.ends_with("sasrec");
  Json config = Json::object({{"name", sasrec ? "sasrec" : "gru4rec"},
                              {"hidden_size", recbole && !sasrec ? 12 : 8},
                              {"n_layers", 2},
                              {"MAX_ITEM_LIST_LENGTH", 6}});
  Json more = Json::object();
  if (sasrec) config.set("n_heads", 2);
  if (recbole && sasrec) {
    more = Json::object({{"inner_size", 16},
                         {"hidden_act", "gelu"},
                         {"norm", "post"},
                         {"layer_norm_eps", 1e-12},
                         {"embedding_norm", true},
                         {"scale_embeddings", false}});
  } else if (recbole) {
    more = Json::object({{"embedding_size", 8}, {"gru_bias", false}});
  }
  for (const auto& [key, value] : more.members()) config.set(key, value);
  return make_sequence_model(
      parse_config(Json::object({{"data", Json::object({{"path", "x"}})}, {"model", config}})).model, items.size(),
      {1, 1});
}

void check_scores(const Golden& golden, const SequenceModel& model) {
  const Ranker ranker = make_ranker(model);
  REQUIRE(golden.histories.size() == 4);
  for (const auto& [name, history] : golden.histories) {
    std::vector<std::int32_t> row;
    for (const double item : history.to_doubles()) {
      row.push_back(*golden.items.find("i" + std::to_string(static_cast<int>(item))));
    }
    const Tensor scores = ranker.score(Sequences::from({row}, golden.items.size()));
    const std::vector<double> expected = golden.scores.at(name).to_doubles();
    REQUIRE(expected.size() == 11);
    for (int i = 1; i <= 11; ++i) {
      const std::int32_t item = *golden.items.find("i" + std::to_string(i));
      const double got = static_cast<double>(scores.data<float>()[item]),
                   wanted = expected[static_cast<std::size_t>(i - 1)];
      INFO(name << " i" << i << ": " << got << " for " << wanted);
      CHECK(std::abs(got - wanted) <= 1e-5 * std::max(1.0, std::abs(wanted)));
    }
  }
}

}  // namespace

TEST_CASE("weights of PyTorch give PyTorch's scores", "[convert_weights]") {
  for (const char* name : {"sasrec", "gru4rec", "recbole_sasrec", "recbole_gru4rec"}) {
    INFO(name);
    const Golden golden(name);
    const auto model = model_of(name, golden.items);
    convert_weights(*model, golden.items, golden.weights, golden.map, golden.rows);
    check_scores(golden, *model);
  }
}

TEST_CASE("weights that do not fit are refused by name and leave the model alone", "[convert_weights]") {
  const Golden golden("gru4rec");
  const auto model = model_of("gru4rec", golden.items);
  std::vector<std::vector<double>> before;
  for (const Tensor& tensor : model->weights()) before.push_back(tensor.to_doubles());
  const auto refuse = [&](const std::map<std::string, Tensor>& weights, const std::string& map,
                          const std::vector<std::string>& rows, const std::string& text) {
    CHECK_THROWS_WITH(convert_weights(*model, golden.items, weights, parse_json(map), rows), Contains(text));
  };
  const std::string map = golden.map.dump();
  const auto without = [&](const std::string& text, const std::string& by) {
    std::string other = map;
    REQUIRE(other.find(text) != std::string::npos);
    return other.replace(other.find(text), text.size(), by);
  };
  refuse(golden.weights, without("\"items.table\"", "\"itms.table\""), golden.rows,
         "missing: items.table (not in the map); left over: item_emb.weight");
  refuse(golden.weights, without("gru.weight_ih_l*", "gru.weight_l*"), golden.rows,
         "layers.0.input.weight (from gru.weight_l0)");
  refuse(golden.weights, map, {}, "do not fit: items.table needs [11, 8]; got [12, 8] of item_emb.weight");
  refuse(golden.weights, map, {"a"},
         "needs an id for each of the rows of what becomes items.table, [12, 8]; got 1 ids");
  std::vector<std::string> other = golden.rows;
  other[3] = "x";
  refuse(golden.weights, map, other, "none has the id 'i3'");
  other[3] = "i5";
  refuse(golden.weights, map, other, "need one row for each item; 'i5' is the id of rows 4 and 6");
  const auto with_table = [&](const Tensor& table) {
    std::map<std::string, Tensor> changed = golden.weights;
    changed["item_emb.weight"] = table;
    return changed;
  };
  refuse(with_table(Tensor({12, 8}, DType::i64)), map, golden.rows,
         "do not fit: items.table is of f32, item_emb.weight of i64");
  Tensor wide = golden.weights.at("item_emb.weight").to(DType::f64).clone();
  for (const double bad : {std::nan(""), 1e300}) {
    wide.mutable_data<double>()[17] = bad;
    refuse(with_table(wide), map, golden.rows,
           "need finite numbers within the range of f32; item_emb.weight has others");
  }
  refuse(golden.weights, without("\"item_emb.weight\"", R"({"from": "item_emb.weight", "skip": 13})"), golden.rows,
         "cannot be cut: item_emb.weight [12, 8]");
  refuse(golden.weights, without("\"item_emb.weight\"", R"({"from": "item_emb.weight", "skip": -1})"), golden.rows,
         "needs to skip at least 0; got -1");
  std::map<std::string, Tensor> more = golden.weights;
  more["head.bias"] = Tensor({3});
  refuse(more, map, golden.rows, "are not those of gru4rec; left over: head.bias");
  refuse(golden.weights, R"({"tensors": {"items.table": {"from": "x", "part": 3, "parts": 3}}})", golden.rows,
         "[map.tensors.items.table] needs a part in [0, parts); got 3 of 3");
  refuse(golden.weights, R"({"tensors": {"items.*.*": "x"}})", golden.rows, "at most one *");
  refuse(golden.weights, R"({"tensor": {}})", golden.rows, "tensors");
  std::size_t i = 0;
  for (const Tensor& tensor : model->weights()) CHECK(tensor.to_doubles() == before[i++]);
  // What is named as unused is.
  Json allowing = golden.map;
  allowing.set("unused", std::vector<std::string>{"head.*"});
  convert_weights(*model, golden.items, more, allowing, golden.rows);
  check_scores(golden, *model);
}

TEST_CASE("rows of padding are skipped, and ids that no item has may repeat", "[convert_weights]") {
  Golden golden("gru4rec");
  const auto model = model_of("gru4rec", golden.items);
  const Tensor table = golden.weights.at("item_emb.weight");
  Tensor padded = Tensor::zeros({15, 8});
  std::copy_n(table.data<float>(), table.numel(), padded.mutable_data<float>() + 3 * 8);
  golden.weights["item_emb.weight"] = padded;
  Json tensors = golden.map.at("tensors");
  tensors.set("items.table", Json::object({{"from", "item_emb.weight"}, {"skip", 2}}));
  golden.map.set("tensors", tensors);
  golden.rows.insert(golden.rows.begin(), golden.rows[0]);
  convert_weights(*model, golden.items, golden.weights, golden.map, golden.rows);
  check_scores(golden, *model);
}

}  // namespace convert_weights_test
