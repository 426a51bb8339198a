"""Runs the tests of the package: with pytest, or, where that is missing, the examples in its documentation with
unittest. Exit status 77: no Python here has NumPy. TILIA_LIBRARY names the library."""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = os.path.dirname(HERE)


def has(python, *modules):
    return subprocess.run([python, "-c", "import " + ", ".join(modules)], stderr=subprocess.DEVNULL).returncode == 0


def doctests():
    import doctest
    import importlib
    import pkgutil
    import unittest

    import tilia

    suite = unittest.TestSuite()
    for m in pkgutil.walk_packages(tilia.__path__, "tilia."):
        suite.addTests(doctest.DocTestSuite(importlib.import_module(m.name)))
    return 0 if unittest.TextTestRunner().run(suite).wasSuccessful() else 1


def main():
    sys.path.insert(0, os.path.join(PACKAGE, "src"))
    if "--doctests" in sys.argv:
        return doctests()
    env = {**os.environ, "PYTHONPATH": os.path.join(PACKAGE, "src")}
    for python in dict.fromkeys([sys.executable, "/usr/bin/python3"]):
        if not os.path.exists(python) or not has(python, "numpy"):
            continue
        if has(python, "pytest"):
            command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "src", "tests"]
        else:
            print("pytest is missing: only the examples in the documentation are run", flush=True)
            command = [python, os.path.abspath(__file__), "--doctests"]
        return subprocess.run(command, cwd=PACKAGE, env=env).returncode
    print("no Python here has NumPy (Debian: python3-numpy): skipped")
    return 77


if __name__ == "__main__":
    sys.exit(main())
