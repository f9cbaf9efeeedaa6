set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2")  # asserts stay: they cost nothing where it matters

add_compile_definitions(OMPI_SKIP_MPICXX=1 MPICH_SKIP_MPICXX=1 TESSERA_VERSION="${PROJECT_VERSION}")
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fno-strict-aliasing>)
# at::parallel_for is serial without it. Only compiled with: the library at run time is LibTorch's own libgomp.
add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)

# Several sources per compiler call: most of a call's time goes into torch's headers, precompiled or not (8 min -> 2 min).
option(TESSERA_UNITY "Compile sources in batches; off where single files are edited and rebuilt" ON)
set(CMAKE_UNITY_BUILD ${TESSERA_UNITY})
set(CMAKE_UNITY_BUILD_BATCH_SIZE 12)

# "address", "undefined", "thread" or a comma list; set by the presets.
set(TESSERA_SANITIZE "" CACHE STRING "Sanitizers to build with")
if(TESSERA_SANITIZE)
  # g++ 12 sees uninitialized values in its own <regex> where it instruments.
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${TESSERA_SANITIZE}> -fno-omit-frame-pointer -g1 -Wno-maybe-uninitialized)
  add_link_options(-fsanitize=${TESSERA_SANITIZE})
endif()

# ccache serves all checkouts on a machine: paths count relative to the checkout, and the precompiled header by what it is
# made of (a checksum file beside it) instead of its 400 MB.
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_PCH_EXTSUM=1 ${CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
endif()

# What the precompiled header is made of, for ccache.
function(tessera_write_precompiled_sum target torch)
  file(SHA256 ${CMAKE_SOURCE_DIR}/cmake/torch_precompiled.h source)
  file(SHA256 ${torch}/version.py version)
  file(WRITE ${CMAKE_BINARY_DIR}/CMakeFiles/${target}.dir/cmake_pch.hxx.gch.sum
       "${source} ${version} ${torch} ${CMAKE_CXX_COMPILER_VERSION} ${CMAKE_BUILD_TYPE} ${CMAKE_CXX_FLAGS} ${TESSERA_SANITIZE}\n")
endfunction()
