# What is shipped: libtilia.a, libtilia.so, the program; then examples and benchmarks.
set(library_objects)
set(library_deps)
set(library_rooms)
foreach(room IN LISTS tilia_rooms)
    if(NOT room IN_LIST tilia_program_rooms)
        list(APPEND library_objects $<TARGET_OBJECTS:tl_${room}>)
        list(APPEND library_deps ${tilia_deps_${room}})
        if(room STREQUAL "cuda")
            list(APPEND library_objects ${tilia_cuda_objects}) # nvcc's; CMake does not count them as the room's own
        endif()
        list(PREPEND library_rooms tl_${room})
    endif()
endforeach()

if(library_objects)
    add_library(tilia_static STATIC ${library_objects})
    add_library(tilia_shared SHARED ${library_objects})
    set_target_properties(tilia_static tilia_shared PROPERTIES OUTPUT_NAME tilia LINKER_LANGUAGE C)
    set_target_properties(tilia_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0)
    target_link_libraries(tilia_static INTERFACE ${library_deps})
    target_link_libraries(tilia_shared PRIVATE ${library_deps})
    if(NOT tilia_sanitize) # a sanitizer's runtime is found only when the program is linked
        target_link_options(tilia_shared PRIVATE -Wl,--no-undefined)
    endif()

    # The archive is sealed: one object in which hidden symbols are local, so that a program that links it
    # statically meets no name of ours but those of the public headers.
    if(NOT tilia_sanitize)
        set(sealed ${PROJECT_BINARY_DIR}/tilia-sealed.o)
        add_custom_command(TARGET tilia_static POST_BUILD
            COMMAND ${CMAKE_LINKER} -r --whole-archive $<TARGET_FILE:tilia_static> -o ${sealed}
            COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${sealed}
            COMMAND ${CMAKE_COMMAND} -E rm -f $<TARGET_FILE:tilia_static>
            COMMAND ${CMAKE_AR} qcs $<TARGET_FILE:tilia_static> ${sealed}
            COMMAND ${CMAKE_COMMAND} -E rm -f ${sealed}
            VERBATIM)
    endif()
endif()

if(TARGET tl_cli)
    add_executable(tilia $<TARGET_OBJECTS:tl_cli>)
    set_target_properties(tilia PROPERTIES LINKER_LANGUAGE C)
    target_link_libraries(tilia PRIVATE tl_cli)
    if(TARGET tl_serve)
        target_compile_definitions(tl_cli PRIVATE TILIA_HAVE_SERVE)
    endif()
endif()

if(TARGET tilia_static)
    file(GLOB examples CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/examples/*.c)
    foreach(source IN LISTS examples)
        get_filename_component(name ${source} NAME_WE)
        add_executable(example_${name} ${source})
        target_link_libraries(example_${name} PRIVATE tilia_static)
        # examples see what a user sees: include/ alone
        set_target_properties(example_${name} PROPERTIES OUTPUT_NAME ${name} INCLUDE_DIRECTORIES
            ${PROJECT_SOURCE_DIR}/include RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
    endforeach()

    file(GLOB benches CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/*.c)
    foreach(source IN LISTS benches)
        get_filename_component(name ${source} NAME_WE)
        add_executable(bench_${name} ${source})
        target_link_libraries(bench_${name} PRIVATE ${library_rooms})
        set_target_properties(bench_${name} PROPERTIES OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY
            ${PROJECT_BINARY_DIR}/bench)
    endforeach()
endif()
