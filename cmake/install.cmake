# A prefix that works when moved: program, recipes, and the torch libraries that a CPU run needs beside it.
include(GNUInstallDirs)
option(TESSERA_INSTALL_TORCH "Install copies of LibTorch's CPU libraries (450 MB) into the prefix" ON)
install(TARGETS tessera RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY recipes/ DESTINATION ${CMAKE_INSTALL_DATADIR}/tessera/recipes FILES_MATCHING PATTERN "*.yaml")
if(TARGET tessera_cuda)
  install(TARGETS tessera_cuda LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(TESSERA_INSTALL_TORCH)
  file(GLOB runtime ${TESSERA_TORCH_LIB}/libtorch_cpu.so ${TESSERA_TORCH_LIB}/libc10.so ${TESSERA_TORCH_LIB}/libgomp*.so*
    ${nvidia_wheels}/cu13/lib/libcudart.so.13 ${nvidia_wheels}/cu13/lib/libcupti.so.13)
  install(PROGRAMS ${runtime} DESTINATION lib)
endif()
