# Options and the compile flags of everything built here; none of them leak into installed targets.

option(TALLY_BUILD_TOOLS "Build the tally command" ${PROJECT_IS_TOP_LEVEL})
option(TALLY_BUILD_EXAMPLES "Build the example programs" ${PROJECT_IS_TOP_LEVEL})
option(TALLY_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(TALLY_WARNINGS_AS_ERRORS "Treat warnings as errors" OFF)
option(TALLY_UNITY "Compile the sources of a folder together: a clean build is faster, a small change slower" ON)
option(BUILD_SHARED_LIBS "Build one shared library per room" OFF)
set(TALLY_SANITIZE "" CACHE STRING "Sanitizers to build with, e.g. address,undefined or thread")
set(TALLY_PARALLEL "tbb" CACHE STRING "Thread backend: tbb, or std (plain threads, for thread sanitizer runs)")
set_property(CACHE TALLY_PARALLEL PROPERTY STRINGS tbb std)

# Within another project the build type is that project's.
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# ar without time stamps and ranlib tables rebuilt only once keep incremental builds quick.
find_program(TALLY_CCACHE ccache)
if(TALLY_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # What ccache asks for before it takes part in builds with precompiled headers, with -fpch-preprocess below.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${TALLY_CCACHE})
endif()

add_library(tally_flags INTERFACE)
# Contraction would make results depend on the instruction set a clone was compiled for; kernels ask for FMA explicitly.
# docs/notes.md, Note [Determinism].
target_compile_options(tally_flags INTERFACE -ffp-contract=off -fno-math-errno
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-align -Wunused)
# GCC 12 reports these for inlined std::vector and std::string code that is correct (GCC bugs 105329, 105651, 107852).
target_compile_options(tally_flags INTERFACE
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict;-Wno-stringop-overflow;-Wno-array-bounds;-Wno-stringop-overread;-Wno-maybe-uninitialized>)
if(TALLY_UNITY)  # true of every private struct once its source is included by another
  target_compile_options(tally_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endif()
# Kernels are compiled for AVX-512, AVX2, SSE4 and scalar code; CPUs of before 2010 make do with the last.
target_compile_definitions(tally_flags INTERFACE HWY_DISABLED_TARGETS=HWY_SSSE3)
# What ccache needs of sources with a precompiled header.
target_compile_options(tally_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
if(TALLY_WARNINGS_AS_ERRORS)
  target_compile_options(tally_flags INTERFACE -Werror)
endif()
if(TALLY_SANITIZE)
  target_compile_options(tally_flags INTERFACE -fsanitize=${TALLY_SANITIZE} -fno-omit-frame-pointer -g)
  target_link_options(tally_flags INTERFACE -fsanitize=${TALLY_SANITIZE})
  if(TALLY_SANITIZE MATCHES "undefined")
    target_compile_options(tally_flags INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()

# What runs once and calls the library for its work, commands and tests: their headers hold much that a compiler inlines and
# optimises for long, and nobody waits for.
add_library(tally_light_flags INTERFACE)
target_link_libraries(tally_light_flags INTERFACE tally_flags)
target_compile_options(tally_light_flags INTERFACE $<$<CONFIG:Release,RelWithDebInfo>:-O1>)
