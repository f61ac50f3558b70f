# Third-party packages, all from Debian 12 (docs/getting-started.md lists them with the reason for each).
find_package(Threads REQUIRED)
find_package(TBB CONFIG REQUIRED)
find_package(hwy CONFIG QUIET)
if(NOT TARGET hwy::hwy)
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)
  add_library(hwy::hwy ALIAS PkgConfig::hwy)
endif()
find_package(nlohmann_json CONFIG REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(ZLIB REQUIRED)

# OpenBLAS: the pthread build by its own path, so that the update-alternative for libopenblas.so.0 is not followed at link
# time. Which build was loaded is verified when the program first needs it (core/blas.cpp).
find_path(TALLY_OPENBLAS_INCLUDE openblas_config.h
  PATHS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread /usr/include/x86_64-linux-gnu/openblas-pthread
        /usr/include/openblas /usr/include)
find_library(TALLY_OPENBLAS_LIBRARY openblas
  PATHS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread /usr/lib/x86_64-linux-gnu/openblas-pthread
  NO_DEFAULT_PATH)
if(NOT TALLY_OPENBLAS_LIBRARY)
  find_library(TALLY_OPENBLAS_LIBRARY openblas)
endif()
if(NOT TALLY_OPENBLAS_LIBRARY OR NOT TALLY_OPENBLAS_INCLUDE)
  message(FATAL_ERROR "OpenBLAS not found: install libopenblas-pthread-dev")
endif()
add_library(tally_openblas INTERFACE)
target_include_directories(tally_openblas SYSTEM INTERFACE $<BUILD_INTERFACE:${TALLY_OPENBLAS_INCLUDE}>)
target_link_libraries(tally_openblas INTERFACE ${TALLY_OPENBLAS_LIBRARY})
