// Readers of recsys: configs, events, served models, states of sessions.
#include <array>
#include <cmath>
#include <sstream>

#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/fingerprint.h"
#include "tally/core/io/json.h"
#include "tally/recsys/config/config.h"
#include "tally/recsys/data/delimited_reader.h"
#include "tally/recsys/models/lisa_serving.h"
#include "tally/recsys/sessions/durable_sessions.h"
#include "tally/recsys/sessions/session_log.h"
#include "tests/fuzz/all_readers.h"
#include "tests/fuzz/scratch.h"
#include "tests/recsys/lisa_samples.h"
#include "tests/recsys/session_samples.h"

namespace tally::fuzz {
namespace {

using namespace recsys;

void run_config(std::string_view bytes) {
  static const Tables tables = standard();
  answered([&] {
    const RunConfig read = load_config(parse_json(bytes), "/data", {}, tables);
    const Json written = to_json(read);
    Json again;
    try {
      again = to_json(load_config(parse_json(written.dump()), "/data", {}, tables));
    } catch (const Error& error) {
      throw std::logic_error(std::string("what was written is refused: ") + error.what());
    }
    require(again == written, "another config");
  });
}

std::vector<std::string> config_seeds() {
  return {R"json({"data":{"path":"a.csv"}})json",
          R"json({"protocol":"klenitskiy","data":{"path":"a.csv"},"train":{"epochs":3,"learning_rate":0.01}})json",
          R"json({"data":{"path":"r.inter","core":"iterative","user_inter_num_interval":"[5,inf)"},
                  "model":{"type":"lisa","codebooks":4},"evaluation":{"topk":[5,10],"mode":"uni100"},
                  "train":{"loss_type":"BCE","negatives":2}})json"};
}

constexpr std::size_t kForms = 4;

ReadOptions form_of(std::size_t form) {
  ReadOptions options;
  options.format = csv_format();
  options.rating_column = "rating";
  options.order_column = "timestamp";
  if (form == 1) options.format.separator = "\t", options.format.quoted = false;
  if (form == 2)
    options.format = {.separator = "::", .quoted = false, .columns = {"user_id", "item_id", "rating", "timestamp"}};
  if (form == 3) {
    options.format = {.separator = " ", .quoted = false, .columns = {"user_id", "item_id"}};
    options.rating_column = options.order_column = "";
  }
  return options;
}

std::string csv_of(const Interactions& data) {
  const auto quoted = [](std::string_view id) {
    std::string text = "\"";
    for (const char c : id) text += c == '"' ? std::string("\"\"") : std::string(1, c);
    return text + '"';
  };
  std::string text = "user_id,item_id,rating,timestamp\n";
  for (std::int64_t user = 0; user < data.num_users(); ++user) {
    for (auto row = static_cast<std::size_t>(data.begin_of(user)); row < static_cast<std::size_t>(data.end_of(user));
         ++row) {
      text +=
          quoted(data.users.name(static_cast<std::int32_t>(user))) + ',' + quoted(data.items.name(data.events[row]));
      text += ',' + Json(data.ratings[row]).dump() + ',' + Json(data.times[row]).dump() + '\n';
    }
  }
  return text;
}

/// The first byte says in which form the others are.
void run_delimited(std::string_view bytes) {
  const std::size_t form = bytes.empty() ? 0 : static_cast<unsigned char>(bytes[0]) % (2 * kForms);
  if (!bytes.empty()) bytes.remove_prefix(1);
  ReadOptions options = form_of(form % kForms);
  options.bad_rows = form < kForms ? BadRows::error : BadRows::skip;
  const std::filesystem::path path = scratch().write("events", bytes);
  answered([&] {
    const Interactions read = read_interactions(path, options);
    if (read.ratings.empty()) return;
    Interactions again;
    try {
      again = read_interactions(scratch().write("again.csv", csv_of(read)), form_of(0));
    } catch (const Error& error) {
      throw std::logic_error(std::string("what was written is refused: ") + error.what());
    }
    require(content_hash(again) == content_hash(read), "other events");
  });
}

std::vector<std::string> delimited_seeds() {
  const std::string rows = "u1,a,4.0,1000\nu1,b,3.5,1000.25\n\"u,\"\"2\",\"c d\",1e0,-7\n";
  return {'\0' + ("user_id,item_id,rating,timestamp\n" + rows),
          std::string("\1user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ta\t1\t2\r\nv\tb\t0\t9\n"),
          "\2u::a::5::978300760\nu::b::3::978302109\n", "\3u a\nu b\nv a\n",
          '\4' + ("\xEF\xBB\xBFuser_id,item_id,rating,timestamp\nbad\n" + rows)};
}

Lisa small_lisa(LisaVariant variant) { return Lisa::make(lisa_samples::small(variant), RngKey{17}); }

void run_serving(std::string_view bytes) {
  const std::filesystem::path path = scratch().write("served", bytes);
  answered([&] {
    const LisaServing read = LisaServing::load(path);
    read.save(scratch() / "written");
    const std::string written = read_file(scratch() / "written");
    LisaServing::load(scratch() / "written").save(scratch() / "rewritten");
    require(read_file(scratch() / "rewritten") == written, "another model");
    if (read.num_items() == 0 || read.window() == 0) return;
    const Tensor scores = read.score(Sequences::from({{0}, {}}, read.num_items()));
    require(scores.dim(0) == 2 && scores.dim(1) == read.num_items(), "scores of another shape");
  });
}

std::vector<std::string> serving_seeds() {
  std::vector<std::string> seeds;
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::mini}) {
    LisaServing::from(small_lisa(variant)).save(scratch() / "seed");
    seeds.push_back(read_file(scratch() / "seed"));
  }
  return seeds;
}

using Model = std::shared_ptr<const RecurrentModel>;

const std::array<Model, 3>& stream_models() {
  static const std::array<Model, 3> models{test::model_named("lisa")->recurrent(),
                                           test::model_named("gru4rec")->recurrent(),
                                           test::model_named("sasrec")->recurrent()};
  return models;
}

/// The first byte says of which model, the others are a state, less its checksum.
void run_state(std::string_view bytes) {
  if (bytes.empty()) return;
  const RecurrentModel& model = *stream_models()[static_cast<unsigned char>(bytes[0]) % stream_models().size()];
  std::string saved(bytes.substr(1));
  answered([&] { model.load_state(saved); });
  write_value(saved, fingerprint(saved));
  answered([&] {
    ModelState state = model.load_state(saved);
    const std::string written = state.save();
    require(model.load_state(written).save() == written, "another state");
    std::vector<float> row(static_cast<std::size_t>(model.width()));
    model.step(state, 3, row);
  });
}

std::vector<std::string> state_seeds() {
  std::vector<std::string> seeds;
  for (std::size_t m = 0; m < stream_models().size(); ++m) {
    for (const int events : {0, 1, 7}) {
      ModelState state = stream_models()[m]->initial_state();
      for (int i = 0; i < events; ++i) stream_models()[m]->append(state, (5 * i + 1) % 700);
      std::string saved = state.save();
      saved.resize(saved.size() - sizeof(std::uint64_t));
      seeds.push_back(static_cast<char>(m) + saved);
    }
  }
  return seeds;
}

std::string users_of(const Sessions& sessions, const std::filesystem::path& directory) {
  sessions.save(directory);
  return read_file(directory / "users.bin");
}

/// A line of a log without its hash for each line; the first, which names the snapshot, is put before them.
void run_session_log(std::string_view bytes) {
  static const std::filesystem::path directory = scratch() / "sessions";
  static Sessions empty(stream_models()[1], test::item_names());
  static const std::string head = [] {
    empty.save(directory);
    const Json fields = verify_directory(directory);
    SessionLog(directory, fields);
    return read_file(directory / SessionLog::kFile);
  }();
  std::string log = head;
  std::istringstream lines{std::string(bytes)};
  for (std::string line; std::getline(lines, line);) {
    log += hexadecimal(fingerprint(line)) + '\t' + line + (lines.eof() ? "" : "\n");
  }
  scratch().write("sessions/events.log", log);
  answered([&] {
    Sessions loaded(stream_models()[1], test::item_names());
    loaded.load(directory);
    const std::string saved = users_of(loaded, scratch() / "saved");
    Sessions again(stream_models()[1], test::item_names());
    again.load(scratch() / "saved");
    require(again.size() == loaded.size(), "other users");
    require(users_of(again, scratch() / "saved").size() == saved.size(), "other sessions");
  });
}

std::vector<std::string> session_log_seeds() {
  return {"e\tu1\titem-1\te\tu2\titem-2\n", "e\tu1\titem-1\nu\tu1\ne\tu3\titem-5\nk\t1\n", "k\t0\n"};
}

}  // namespace

const Reader kConfig{"config", run_config, config_seeds};
const Reader kDelimited{"delimited", run_delimited, delimited_seeds};
const Reader kServing{"serving", run_serving, serving_seeds};
const Reader kState{"state", run_state, state_seeds};
const Reader kSessionLog{"session_log", run_session_log, session_log_seeds};

}  // namespace tally::fuzz
