# Third-party packages, all from Debian 12 (docs/getting-started.md lists them with the reason for each). What a static
# library needs in a consumer's link is found again by tally-config.cmake.
list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}/modules")
find_package(Threads REQUIRED)
find_package(TBB CONFIG REQUIRED)
find_package(Highway REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Boost REQUIRED)
find_package(xxHash REQUIRED)
find_package(OpenBLASPthread REQUIRED)
