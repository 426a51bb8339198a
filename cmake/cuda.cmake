# CUDA, if it is asked for. OFF, the default while there are no kernels, builds the stub: nothing depends on nvcc then.
# AUTO takes nvcc where it is and works; ON insists. The runtime is linked statically and finds the driver when a device
# is asked for, so the program starts where there is none.
set(TILIA_CUDA OFF CACHE STRING "OFF, AUTO or ON: the CUDA runtime and kernels (needs nvcc)")
set_property(CACHE TILIA_CUDA PROPERTY STRINGS OFF AUTO ON)
set(tilia_cuda FALSE)
set(tilia_deps_cuda)
if(NOT TILIA_CUDA MATCHES "^(OFF|AUTO|ON)$")
    message(FATAL_ERROR "TILIA_CUDA is OFF, AUTO or ON, not ${TILIA_CUDA}")
endif()
set(tilia_nvcc_flags -std=c++17 -O3 -Xcompiler -fPIC,-Wall,-ffp-contract=off --fmad=true
    -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=compute_80)

# Does it compile for our architectures, and is the runtime beside it? why is set if not.
function(tilia_try_nvcc why)
    set(${why} "" PARENT_SCOPE)
    find_program(TILIA_NVCC nvcc HINTS /usr/local/cuda/bin)
    if(NOT TILIA_NVCC)
        set(${why} "nvcc was not found" PARENT_SCOPE)
        return()
    endif()
    execute_process(COMMAND ${TILIA_NVCC} --dryrun -x cu /dev/null OUTPUT_VARIABLE said ERROR_VARIABLE said)
    string(REGEX MATCH "_TARGET_DIR_=([^\n]*)" _ "${said}") # nvcc may be a script that calls the real one
    set(sub "${CMAKE_MATCH_1}")
    string(REGEX MATCH "TOP=([^\n]*)" _ "${said}")
    get_filename_component(top "${CMAKE_MATCH_1}" REALPATH)
    find_path(TILIA_CUDA_INCLUDE cuda_runtime_api.h HINTS ${top}/include ${top}/${sub}/include)
    find_library(TILIA_CUDART libcudart_static.a HINTS ${top}/lib64 ${top}/lib ${top}/${sub}/lib)
    if(NOT TILIA_CUDA_INCLUDE OR NOT TILIA_CUDART)
        set(${why} "cuda_runtime_api.h or libcudart_static.a was not found beside ${TILIA_NVCC}" PARENT_SCOPE)
        return()
    endif()
    file(WRITE ${PROJECT_BINARY_DIR}/try.cu "__global__ void f(float *x) { x[threadIdx.x] *= 2; }\n")
    execute_process(COMMAND ${TILIA_NVCC} ${tilia_nvcc_flags} -c ${PROJECT_BINARY_DIR}/try.cu -o
        ${PROJECT_BINARY_DIR}/try.o RESULT_VARIABLE code ERROR_VARIABLE said OUTPUT_VARIABLE said)
    if(NOT code EQUAL 0)
        string(STRIP "${said}" said)
        set(${why} "${TILIA_NVCC} does not compile for sm_80 and sm_90a: ${said}" PARENT_SCOPE)
    endif()
endfunction()

if(NOT TILIA_CUDA STREQUAL "OFF")
    tilia_try_nvcc(why)
    if(NOT why)
        set(tilia_cuda TRUE)
        set(tilia_pc_cuda " ${TILIA_CUDART} -ldl -lrt") # of a program that links libtilia.a
        set(tilia_deps_cuda ${TILIA_CUDART} dl rt Threads::Threads)
        message(STATUS "CUDA: ${TILIA_NVCC}, for sm_80, sm_90a and PTX")
    elseif(TILIA_CUDA STREQUAL "ON")
        message(FATAL_ERROR "TILIA_CUDA=ON, but ${why}")
    else()
        message(STATUS "no CUDA: ${why}")
    endif()
endif()

# Objects of the .cu files among the arguments, in out.
function(tilia_compile_cuda out)
    set(objects)
    file(GLOB headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cuda/*.h ${PROJECT_SOURCE_DIR}/src/cuda/*.def)
    foreach(source IN LISTS ARGN)
        get_filename_component(name ${source} NAME)
        set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
        add_custom_command(OUTPUT ${object}
            COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/cuda
            COMMAND ${TILIA_NVCC} ${tilia_nvcc_flags} -I${PROJECT_SOURCE_DIR}/include -I${PROJECT_SOURCE_DIR}/src
                    -MD -MF ${object}.d -c ${source} -o ${object}
            DEPENDS ${source} ${headers} DEPFILE ${object}.d COMMENT "nvcc ${name}" VERBATIM)
        list(APPEND objects ${object})
    endforeach()
    set(${out} ${objects} PARENT_SCOPE)
endfunction()
