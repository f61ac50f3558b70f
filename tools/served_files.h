#pragma once

// The files of a directory that `tally compress` writes and `tally recommend` reads.
namespace tally::tools::served_files {

inline constexpr const char* kModel = "model.safetensors";
inline constexpr const char* kItems = "items.txt";    ///< the id of each item, a line each
inline constexpr const char* kTitles = "titles.txt";  ///< the same for titles; absent where there are none
inline constexpr const char* kReport = "compression.json";

// Fields of its manifest: how the run reads files of histories, and computes.
inline constexpr const char* kUserColumn = "user_column";
inline constexpr const char* kItemColumn = "item_column";
inline constexpr const char* kFlushDenormals = "flush_denormals";

}  // namespace tally::tools::served_files
