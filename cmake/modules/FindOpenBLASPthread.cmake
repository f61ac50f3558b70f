# Finds the pthread build of OpenBLAS and defines tally::openblas. The build is looked for at its own path first, so that
# Debian's update-alternative for libopenblas.so is not followed at link time; which build the loader takes is verified
# when the program first needs it (core/blas.cpp; docs/notes.md, Note [OpenBLAS variants]).
# Installed with the package: a consumer finds the library on its own machine.
find_path(OpenBLASPthread_INCLUDE_DIR cblas.h
  PATHS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread /usr/include/x86_64-linux-gnu/openblas-pthread
  NO_DEFAULT_PATH)
find_path(OpenBLASPthread_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas)
find_library(OpenBLASPthread_LIBRARY openblas
  PATHS /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread /usr/lib/x86_64-linux-gnu/openblas-pthread
  NO_DEFAULT_PATH)
find_library(OpenBLASPthread_LIBRARY openblas)
mark_as_advanced(OpenBLASPthread_INCLUDE_DIR OpenBLASPthread_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenBLASPthread
  REQUIRED_VARS OpenBLASPthread_LIBRARY OpenBLASPthread_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install libopenblas-pthread-dev")

if(OpenBLASPthread_FOUND AND NOT TARGET tally::openblas)
  add_library(tally::openblas UNKNOWN IMPORTED GLOBAL)
  set_target_properties(tally::openblas PROPERTIES
    IMPORTED_LOCATION ${OpenBLASPthread_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${OpenBLASPthread_INCLUDE_DIR})
endif()
