# cmake --install: headers, libraries, find_package(tally 0.1) with one target per room and tally::tally, tally.pc and
# tally-commands.pc, documents and examples.
# The installed tree may be moved; tests/packaging/install_consumer.sh does so.
include(CMakePackageConfigHelpers)

get_property(rooms GLOBAL PROPERTY TALLY_ROOMS)
set(TALLY_PC_LIBS)
foreach(room IN LISTS rooms)
  # Headers that only a room's own sources use: the thread backend's seam and the kernels behind the ops.
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${room}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tally/${room}
    FILES_MATCHING PATTERN "*.h" PATTERN "*_backend.h" EXCLUDE PATTERN "kernels" EXCLUDE)
  install(TARGETS tally_${room} EXPORT tally-targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  # Highest room first: the order a linker wants static libraries in.
  string(PREPEND TALLY_PC_LIBS "-ltally_${room} ")
endforeach()
install(TARGETS tally_tally EXPORT tally-targets)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tally)
install(EXPORT tally-targets NAMESPACE tally:: DESTINATION ${config_dir})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/tally-config.cmake.in
  ${PROJECT_BINARY_DIR}/tally-config.cmake INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tally-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tally-config.cmake ${PROJECT_BINARY_DIR}/tally-config-version.cmake
  DESTINATION ${config_dir})
install(FILES ${PROJECT_SOURCE_DIR}/cmake/modules/FindOpenBLASPthread.cmake
  ${PROJECT_SOURCE_DIR}/cmake/modules/FindHighway.cmake DESTINATION ${config_dir}/modules)

file(RELATIVE_PATH TALLY_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${PROJECT_SOURCE_DIR}/cmake/tally.pc.in ${PROJECT_BINARY_DIR}/tally.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tally.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(TARGET tally::commands)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/tally-commands.pc.in ${PROJECT_BINARY_DIR}/tally-commands.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/tally-commands.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
# What a reader wants beside the headers. Links among the documents hold there too.
foreach(file LICENSE README.md CHANGELOG.md CONTRIBUTING.md)
  install(FILES ${PROJECT_SOURCE_DIR}/${file} DESTINATION ${CMAKE_INSTALL_DOCDIR})
endforeach()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs ${PROJECT_SOURCE_DIR}/examples DESTINATION ${CMAKE_INSTALL_DOCDIR}
  USE_SOURCE_PERMISSIONS)
