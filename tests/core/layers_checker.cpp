#include "layers_checker.h"

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace tally::layers {
namespace {

constexpr int kHeaderLines = 220;
constexpr int kSourceLines = 500;

using Names = std::set<std::string>;

// A room may include itself and these. tools, examples and tests may include every room; examples, whose programs offer
// the commands over ops of their own, the public header of tools too.
const std::map<std::string, Names> kRoomsBelow = {
    {"core", {}},
    {"autograd", {"core"}},
    {"ops", {"autograd", "core"}},
    {"nn", {"ops", "autograd", "core"}},
    {"recsys", {"nn", "ops", "autograd", "core"}},
    {"tools", {"recsys", "nn", "ops", "autograd", "core"}},
    {"examples", {"tools", "recsys", "nn", "ops", "autograd", "core"}},
    {"tests", {"tools", "examples", "recsys", "nn", "ops", "autograd", "core"}},
};

const Names kLibraryRooms = {"core", "autograd", "ops", "nn", "recsys"};

bool starts_with(const std::string& text, const std::string& beginning) { return text.rfind(beginning, 0) == 0; }
bool ends_with(const std::string& text, const std::string& ending) {
  return text.size() >= ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

/// The third-party library a header belongs to; "" for the standard library, the system and the tree itself.
std::string library_of(const std::string& header) {
  static const std::vector<std::pair<std::string, std::string>> kPrefixes = {{"oneapi/tbb", "TBB"},
                                                                             {"tbb/", "TBB"},
                                                                             {"cblas", "BLAS"},
                                                                             {"openblas", "BLAS"},
                                                                             {"lapack", "BLAS"},
                                                                             {"f77blas", "BLAS"},
                                                                             {"hwy/", "Highway"},
                                                                             {"nlohmann/", "JSON"},
                                                                             {"zlib", "zlib"},
                                                                             {"zconf", "zlib"},
                                                                             {"CLI/", "CLI11"},
                                                                             {"fmt/", "fmt"},
                                                                             {"catch2/", "Catch2"},
                                                                             {"boost/math/", "Boost.Math"},
                                                                             {"xxhash", "xxHash"},
                                                                             {"immintrin", "intrinsics"},
                                                                             {"x86intrin", "intrinsics"},
                                                                             {"arm_neon", "intrinsics"}};
  for (const auto& [prefix, library] : kPrefixes) {
    if (starts_with(header, prefix)) return library;
  }
  return "";
}

bool is_source(const std::string& path) { return ends_with(path, ".cpp"); }

/// What kernels of core share with those of ops.
bool is_core_kernel_header(const std::string& path) { return starts_with(path, "core/") && ends_with(path, "-inl.h"); }

/// Files that sources of kernels alone include: they may see what a source may see.
bool is_private_header(const std::string& path) {
  return starts_with(path, "ops/kernels/") || is_core_kernel_header(path);
}

bool library_allowed(const std::string& library, const std::string& path, const std::string& room) {
  if (library == "Catch2") return room == "tests";
  if (library == "CLI11") return room == "tools";
  if (room == "tests") return true;
  if (room == "tools" || room == "examples") return library == "fmt";
  if (!is_source(path)) return library == "Highway" && is_private_header(path);
  if (library == "fmt") return true;
  if (library == "Highway") return room == "core" || starts_with(path, "ops/kernels/");
  return room == "core";
}

std::string room_of(const std::string& path) { return path.substr(0, path.find('/')); }

class Checker {
 public:
  Checker(const std::string& path, const std::string& text) : path_(path), room_(room_of(path)), text_(text) {}

  std::vector<std::string> run() {
    if (!kRoomsBelow.contains(room_)) {
      report(0, "belongs to no room");
      return problems_;
    }
    static const std::regex kInclude(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"].*$)");
    std::istringstream lines(text_);
    std::string line;
    int number = 0;
    // Highway's own include guard: these are included once per SIMD target.
    bool guarded =
        is_source(path_) || (ends_with(path_, "-inl.h") && text_.find("HWY_TARGET_TOGGLE") != std::string::npos);
    while (std::getline(lines, line)) {
      ++number;
      if (starts_with(line, "#pragma once")) guarded = true;
      std::smatch match;
      if (std::regex_match(line, match, kInclude)) check_include(number, match[2], match[1] == "\"");
    }
    if (!guarded) report(1, "has no #pragma once");
    const int limit = is_source(path_) ? kSourceLines : kHeaderLines;
    if (number > limit) report(number, "is longer than " + std::to_string(limit) + " lines");
    return problems_;
  }

 private:
  void check_include(int line, const std::string& header, bool quoted) {
    if (starts_with(header, "tally/")) {
      check_room(line, header.substr(6));
      if (!quoted) report(line, "includes <" + header + "> in angle brackets; write \"" + header + "\"");
      return;
    }
    const std::string library = library_of(header);
    if (!library.empty()) {
      if (!library_allowed(library, path_, room_)) report(line, "may not include " + library + " (" + header + ")");
    } else if (quoted && kLibraryRooms.contains(room_)) {
      report(line, "includes \"" + header + "\"; write \"tally/ROOM/file.h\"");
    } else if (!quoted && header.find('/') != std::string::npos && !starts_with(header, "sys/")) {
      report(line, "includes the unknown library header <" + header + ">; add it to the checker's table");
    }
  }

  void check_room(int line, const std::string& target) {
    const std::string other = room_of(target);
    if (other != room_ && !kRoomsBelow.at(room_).contains(other)) {
      report(line, "may not include " + other + " (tally/" + target + ")");
      return;
    }
    if (ends_with(target, "_backend.h") && other != room_ && room_ != "tests")
      report(line, "may not include the private tally/" + target);
    if (is_core_kernel_header(target) && room_ != "core" && !starts_with(path_, "ops/kernels/")) {
      report(line, "may not include the private tally/" + target);
    }
    if (starts_with(target, "ops/kernels/")) {
      const bool library_header = room_ == "ops" && !is_source(path_) && !is_private_header(path_);
      if (room_ == "nn" || room_ == "recsys" || room_ == "tools" || room_ == "examples" || library_header) {
        report(line, "may not include the private tally/" + target);
      }
    }
  }

  void report(int line, const std::string& problem) {
    problems_.push_back(path_ + (line > 0 ? ":" + std::to_string(line) : "") + " " + problem);
  }

  const std::string& path_;
  const std::string room_;
  const std::string& text_;
  std::vector<std::string> problems_;
};

/// "recsys/run" for recsys/run/train_run.cpp, "recsys" for recsys/ranker.h.
std::string sub_room_of(const std::string& path) {
  const std::size_t first = path.find('/');
  const std::size_t second = path.find('/', first + 1);
  return path.substr(0, second == std::string::npos ? first : second);
}

/// Where each sub-room reaches, with an include that does so.
using Reach = std::map<std::string, std::map<std::string, std::string>>;

Reach reach_of(const std::map<std::string, std::string>& tree) {
  static const std::regex kInclude(R"re(\s*#\s*include\s*"tally/([^"]+)".*)re");
  Reach reach;
  for (const auto& [path, text] : tree) {
    if (!kLibraryRooms.contains(room_of(path))) continue;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::smatch match;
      if (line.find("include") == std::string::npos || !std::regex_match(line, match, kInclude)) continue;
      const std::string from = sub_room_of(path), to = sub_room_of(match[1]);
      if (from != to) reach[from].try_emplace(to, path + " includes tally/" + match[1].str());
    }
  }
  return reach;
}

/// The way from one sub-room back to itself that visits the fewest others, as includes; empty when there is none.
std::vector<std::string> way_back(const Reach& reach, const std::string& start) {
  std::map<std::string, std::vector<std::string>> ways{{start, {}}};
  std::vector<std::string> queue{start};
  for (std::size_t at = 0; at < queue.size(); ++at) {
    const auto from = reach.find(queue[at]);
    if (from == reach.end()) continue;
    for (const auto& [to, include] : from->second) {
      std::vector<std::string> way = ways.at(queue[at]);
      way.push_back(include);
      if (to == start) return way;
      if (ways.try_emplace(to, way).second) queue.push_back(to);
    }
  }
  return {};
}

}  // namespace

std::vector<std::string> cycles(const std::map<std::string, std::string>& tree) {
  const Reach reach = reach_of(tree);
  std::vector<std::string> problems;
  Names named;
  for (const auto& [room, unused] : reach) {
    const std::vector<std::string> way = way_back(reach, room);
    if (way.empty() || named.contains(room)) continue;
    std::string problem = room + " includes itself by way of others:";
    for (const std::string& include : way) {
      problem += ' ' + include + ';';
      named.insert(sub_room_of(include));
    }
    problems.push_back(problem);
  }
  return problems;
}

std::vector<std::string> violations(const std::string& path, const std::string& text) {
  return Checker(path, text).run();
}

}  // namespace tally::layers
