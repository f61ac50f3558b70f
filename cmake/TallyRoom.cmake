# tally_room(NAME [PUBLIC_LINKS ...] [PRIVATE_LINKS ...] [LIGHT pattern] [PRECOMPILE header ...]): one library per room, from
# the headers and sources that stand in its folder. The folder is linked as <build>/include/tally/NAME, so includes read
# "tally/NAME/file.h" here and installed. Sources whose path in the room matches LIGHT run once and compute little:
# compiled for a short build, not for speed. PRECOMPILE names what most sources of a room with many of them include, and
# go on including.

file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/include/tally)

# tally_unity(TARGET SOURCE ...): sources of a folder are compiled together, 7 at a time. Kernels are not, for they are
# compiled once per SIMD target, nor are folders of ops, whose rules and entries are alike down to their names, nor what
# replaces operator new for a whole program.
function(tally_unity target)
  if(NOT TALLY_UNITY)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  foreach(source IN LISTS ARGN)
    cmake_path(RELATIVE_PATH source BASE_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE path)
    file(STRINGS ${source} alone REGEX "foreach_target|^void\\* operator new")
    if(alone OR path MATCHES "^ops/(kernels|attention|quantization|losses|lookup|tensor|memory|recurrent)/" OR path STREQUAL "core/version.cpp")
      continue()
    endif()
    cmake_path(GET path PARENT_PATH folder)
    string(REPLACE "/" "_" folder ${folder})
    math(EXPR count_${folder} "${count_${folder}}+1")
    math(EXPR part "(${count_${folder}}-1)/7")
    set_source_files_properties(${source} TARGET_DIRECTORY ${target} PROPERTIES UNITY_GROUP "${folder}_${part}")
  endforeach()
endfunction()

# How a room compiles some of its sources.
macro(tally_room_sources target flags)
  tally_unity(${target} ${ARGN})
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} PRIVATE ${ROOM_PRIVATE_LINKS} $<BUILD_INTERFACE:${flags}>)
  if(ROOM_PRECOMPILE AND TALLY_UNITY)
    target_precompile_headers(${target} PRIVATE ${ROOM_PRECOMPILE})
    # ccache may take a comment's change for none and give back a header precompiled before it, in which `#pragma once`
    # then does not know the file again. CCACHE_DEPEND has it go by the bytes of what was included.
    if(CMAKE_CXX_COMPILER_LAUNCHER MATCHES "ccache")
      set_property(TARGET ${target} PROPERTY CXX_COMPILER_LAUNCHER
        ${CMAKE_COMMAND} -E env CCACHE_DEPEND=1 ${CMAKE_CXX_COMPILER_LAUNCHER})
    endif()
  endif()
endmacro()

function(tally_room name)
  cmake_parse_arguments(ROOM "" "LIGHT" "PUBLIC_LINKS;PRIVATE_LINKS;PRECOMPILE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${name}/*.cpp)
  if(NOT EXISTS ${PROJECT_BINARY_DIR}/include/tally/${name})
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${name} ${PROJECT_BINARY_DIR}/include/tally/${name} SYMBOLIC)
  endif()
  if(name STREQUAL "core")
    list(FILTER sources EXCLUDE REGEX "parallel_(tbb|std)\\.cpp$")
    list(APPEND sources ${PROJECT_SOURCE_DIR}/core/parallel_${TALLY_PARALLEL}.cpp)
  endif()
  if(ROOM_LIGHT)
    set(light ${sources})
    list(FILTER light INCLUDE REGEX "^${PROJECT_SOURCE_DIR}/${name}/${ROOM_LIGHT}")
    list(REMOVE_ITEM sources ${light})
    add_library(tally_${name}_light OBJECT ${light})
    tally_room_sources(tally_${name}_light tally_light_flags ${light})
    target_link_libraries(tally_${name}_light PRIVATE ${ROOM_PUBLIC_LINKS})
  endif()
  add_library(tally_${name} ${sources})
  tally_room_sources(tally_${name} tally_flags ${sources})
  if(ROOM_LIGHT)
    target_sources(tally_${name} PRIVATE $<TARGET_OBJECTS:tally_${name}_light>)
  endif()
  add_library(tally::${name} ALIAS tally_${name})
  set_target_properties(tally_${name} PROPERTIES EXPORT_NAME ${name}
    INSTALL_RPATH "$ORIGIN" VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  target_compile_features(tally_${name} PUBLIC cxx_std_20)
  target_link_libraries(tally_${name} PUBLIC ${ROOM_PUBLIC_LINKS})
  if(BUILD_SHARED_LIBS)
    target_link_options(tally_${name} PRIVATE $<$<NOT:$<BOOL:${TALLY_SANITIZE}>>:-Wl,--no-undefined>)
  endif()
  set_property(GLOBAL APPEND PROPERTY TALLY_ROOMS ${name})
endfunction()

# tally_revision(NAME): adds a source to the room that knows the commit being built.
function(tally_revision name)
  set(source ${PROJECT_BINARY_DIR}/generated/revision.cpp)
  add_custom_target(tally_find_revision BYPRODUCTS ${source}
    COMMAND ${CMAKE_COMMAND} -DSOURCE=${PROJECT_SOURCE_DIR} -DOUTPUT=${source}
      -P ${PROJECT_SOURCE_DIR}/cmake/TallyRevision.cmake
    COMMENT "Finding the revision")
  target_sources(tally_${name} PRIVATE ${source})
  add_dependencies(tally_${name} tally_find_revision)
endfunction()

function(tally_umbrella)
  add_library(tally_tally INTERFACE)
  add_library(tally::tally ALIAS tally_tally)
  set_target_properties(tally_tally PROPERTIES EXPORT_NAME tally)
  target_link_libraries(tally_tally INTERFACE tally::recsys)
endfunction()
