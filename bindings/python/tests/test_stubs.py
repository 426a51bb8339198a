"""The stubs say what the functions are."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numpy")
TOOL = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tools", "make_stubs.py")


@pytest.mark.skipif("TILIA_LIBRARY" not in os.environ or not os.path.exists(TOOL), reason="needs the source tree")
def test_stubs_are_current():
    assert subprocess.run([sys.executable, TOOL, "--check"]).returncode == 0, "run tools/make_stubs.py"


def test_everything_is_documented_with_an_example():
    import tilia
    import tilia.ops as ops

    for module in (tilia, ops):
        for name in module.__all__:
            x = getattr(module, name)
            doc = getattr(x, "__doc__", None)
            assert doc and (len(doc) > 10), name
            if module is ops and name not in ("Operator", "asarray", "from_dlpack"):
                assert ">>>" in doc, name
