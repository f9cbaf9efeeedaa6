set(tessera_warnings -Wall -Wextra -Wpedantic -Wshadow -Wno-unused-parameter)
if(TESSERA_WARNINGS_AS_ERRORS)
  list(APPEND tessera_warnings -Werror)
endif()

# The one precompiled header: torch, shared by every target that links it.
function(tessera_precompile target)
  get_target_property(links ${target} LINK_LIBRARIES)
  if("torch::cpu" IN_LIST links)
    target_precompile_headers(${target} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/torch_precompiled.h)
  else()
    target_precompile_headers(${target} REUSE_FROM tessera_parallel)
  endif()
endfunction()

# tessera_library(FOLDER LIBRARIES…): a static library of all sources below FOLDER, found under tessera::FOLDER.
function(tessera_library folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${folder}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/launch/main\\.cpp$|/cuda/")
  add_library(tessera_${folder} STATIC ${sources})
  set(loops ${sources})
  list(FILTER loops INCLUDE REGEX "/kernels/cpu/.*loops\\.cpp$")
  set_source_files_properties(${loops} PROPERTIES SKIP_PRECOMPILE_HEADERS ON
    COMPILE_OPTIONS "-O3;-fno-math-errno;-fno-trapping-math;-ffp-contract=off")
  add_library(tessera::${folder} ALIAS tessera_${folder})
  target_include_directories(tessera_${folder} PUBLIC ${CMAKE_SOURCE_DIR})
  target_link_libraries(tessera_${folder} PUBLIC ${ARGN})
  target_compile_options(tessera_${folder} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${tessera_warnings}>)
  if(folder MATCHES "parallel|trainer|launch")
    tessera_precompile(tessera_${folder})
  endif()
endfunction()

# tessera_program(NAME SOURCE… LIBRARIES…): an executable whose symbols the GPU plug-in may use.
function(tessera_program name)
  set(sources ${ARGN})
  set(libraries ${ARGN})
  list(FILTER sources INCLUDE REGEX "\\.cpp$")
  list(FILTER libraries EXCLUDE REGEX "\\.cpp$")
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE ${libraries})
  target_compile_options(${name} PRIVATE ${tessera_warnings} -fPIC)  # as the precompiled header has it
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON INSTALL_RPATH "$ORIGIN/../lib;${TESSERA_TORCH_LIB}"
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
endfunction()

# GPU support, libtessera_cuda.so beside the program and made with it: the sources in cuda/ folders.
function(tessera_cuda_plugin program)
  if(NOT TESSERA_HAS_CUDA)
    return()
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS trainer/*/cuda/*.cpp trainer/*/cuda/*.cu parallel/cuda/*.cpp parallel/cuda/*.cu)
  add_library(tessera_cuda MODULE ${sources})
  add_dependencies(${program} tessera_cuda)  # nothing is linked, but a program without it would not see the GPU
  target_include_directories(tessera_cuda PRIVATE ${CMAKE_SOURCE_DIR})
  target_include_directories(tessera_cuda SYSTEM PRIVATE ${torch_include} ${NCCL_INCLUDE} ${cuda_root}/include)
  target_link_libraries(tessera_cuda PRIVATE fmt::headers ${TESSERA_TORCH_LIB}/libtorch_cuda.so
    ${TESSERA_TORCH_LIB}/libc10_cuda.so torch::cpu ${NCCL_LIBRARY} ${CUDART})
  target_link_options(tessera_cuda PRIVATE -Wl,--no-as-needed)
  target_compile_options(tessera_cuda PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${tessera_warnings}>)
  # No batches: CMake 3.31 makes them of .cu files too, whose kernels share short names.
  set_target_properties(tessera_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR} CUDA_STANDARD 17 UNITY_BUILD OFF
    INSTALL_RPATH "$ORIGIN;${TESSERA_TORCH_LIB};${nvidia_wheels}/nccl/lib;${nvidia_wheels}/cu13/lib")
endfunction()
