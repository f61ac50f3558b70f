# What must not compile, by the messages of the compiler.
file(GLOB refused CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cpp)
foreach(source IN LISTS refused)
  get_filename_component(name ${source} NAME_WE)
  add_test(NAME refused.${name} COMMAND ${CMAKE_CURRENT_LIST_DIR}/compile.sh
    ${PROJECT_BINARY_DIR}/include ${source} ${CMAKE_CXX_COMPILER})
endforeach()
