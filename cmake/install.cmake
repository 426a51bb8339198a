# Headers, both libraries, the program, tilia.pc and the manual page. The Makefile's uninstall reads the manifest.
install(FILES include/tilia.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} OPTIONAL)
install(DIRECTORY include/tilia DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.def")
if(TARGET tilia_static)
    install(TARGETS tilia_static tilia_shared
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(TARGET tilia)
    install(TARGETS tilia RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
if(EXISTS ${PROJECT_SOURCE_DIR}/docs/tilia.1)
    install(FILES docs/tilia.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
if(EXISTS ${PROJECT_SOURCE_DIR}/tilia.pc.in)

    configure_file(tilia.pc.in tilia.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/tilia.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
