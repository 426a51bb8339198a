# The Python package is tested against libtilia.so as built, without installing. Skipped where Python or NumPy is missing.
find_program(python3 NAMES python3)
if(TARGET tilia_shared AND python3 AND NOT tilia_sanitize)
    add_test(NAME python COMMAND ${python3} ${PROJECT_SOURCE_DIR}/bindings/python/tests/run.py)
    set_tests_properties(python PROPERTIES LABELS python TIMEOUT 300 SKIP_RETURN_CODE 77 ENVIRONMENT
        "TILIA_LIBRARY=$<TARGET_FILE:tilia_shared>;PYTHONDONTWRITEBYTECODE=1")
endif()

# What bench/table.py makes of samples; measures nothing.
if(python3)
    add_test(NAME figures COMMAND ${python3} ${PROJECT_SOURCE_DIR}/bench/table_test.py)
    set_tests_properties(figures PROPERTIES LABELS python TIMEOUT 60 ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)
endif()
