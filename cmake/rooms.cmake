# The rooms, ground floor first. Room R becomes tl_R, which links every room on the lines below it, so a room builds
# and is tested while those above it do not compile. A room without sources is skipped.
set(tilia_lines base tensor,format op,tokenizer graph,data cpu,cuda engine model infer,cost,runlog eval train study
    serve api cli)
# Linked into the program alone, so that libtilia needs neither SQLite nor cairo nor an HTTP server.
set(tilia_program_rooms runlog study serve cli)

set(tilia_rooms) # rooms that have sources, ground floor first
set(tilia_below) # libraries of the lines below the one at hand, nearest first, as the linker wants them
foreach(line IN LISTS tilia_lines)
    string(REPLACE "," ";" line "${line}")
    set(here)
    foreach(room IN LISTS line)
        file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${room}/*.c)
        set(tilia_below_${room} ${tilia_below})
        if(NOT sources OR (room STREQUAL "serve" AND NOT microhttpd_FOUND))
            continue()
        endif()
        tilia_flag_leaves(${sources})
        if(room STREQUAL "data") # beside graph/, and in need of no operator
            list(FILTER tilia_below_data EXCLUDE REGEX "tl_op")
        endif()
        add_library(tl_${room} STATIC ${sources})
        target_link_libraries(tl_${room} PUBLIC ${tilia_below_${room}} ${tilia_deps_${room}})
        list(APPEND tilia_rooms ${room})
        list(APPEND here tl_${room})
    endforeach()
    list(PREPEND tilia_below ${here})
endforeach()
# Gradient rules append operators through functions of <tilia/op.h> that graph/ defines: the one circle there is.
if(TARGET tl_op AND TARGET tl_graph)
    target_link_libraries(tl_op INTERFACE tl_graph)
elseif(TARGET tl_op)
    target_link_options(tl_op INTERFACE -Wl,--warn-unresolved-symbols)
endif()
if(TARGET tl_cpu)
    target_include_directories(tl_cpu SYSTEM PRIVATE ${dnnl_include})
endif()
if(TARGET tl_serve)
    target_compile_definitions(tl_serve PUBLIC TILIA_HAVE_SERVE)
endif()
