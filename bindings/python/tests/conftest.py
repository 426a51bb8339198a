import os
import sys

import pytest

if "TILIA_LIBRARY" in os.environ:  # the tree's files with a library just built; else what is installed
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src"))

TEXT = "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs.\n" * 40


@pytest.fixture(scope="session")
def text():
    return TEXT


@pytest.fixture(scope="session")
def trained(text):
    """A tiny model that knows the text by heart, almost."""
    import tilia

    m = tilia.Model.create("preset:tiny", seed=1)
    tilia.Trainer(m, steps=60, rows=8, context=64, lr=1e-2, warmup=5, seed=1).add_text(text).run()
    yield m
    m.close()
