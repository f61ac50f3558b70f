# The installed package, as a program outside the tree meets it. Sanitizer builds would need their flags in the consumer.
if(NOT TALLY_SANITIZE)
  if(BUILD_SHARED_LIBS)
    set(library_kind shared)
  else()
    set(library_kind static)
  endif()
  add_test(NAME install.consumer COMMAND ${CMAKE_CURRENT_LIST_DIR}/install_consumer.sh
    ${PROJECT_BINARY_DIR} ${CMAKE_CXX_COMPILER} ${library_kind})
  set_tests_properties(install.consumer PROPERTIES TIMEOUT 600)
endif()
