"""Tilia: Transformer language models, the whole way, from the C library.

    import tilia
    with tilia.Model.open("runs/latest") as m:
        for text in m.stream("Once", temperature=0.8):
            print(text, end="")

Text in and out needs nothing but Python; ``tilia.ops`` (every operator on arrays) needs NumPy. Computing releases the
interpreter's lock, and one engine computes one thing at a time. After fork() a child makes its own objects."""

from __future__ import annotations

from ._engine import Engine, default_engine, set_default_engine
from ._errors import (
    Cancelled,
    DtypeError,
    Error,
    FileError,
    FormatError,
    InvalidError,
    NotFoundError,
    NumericError,
    OutOfMemoryError,
    ShapeError,
    StateError,
)
from ._lib import lib as _library
from ._text import Model, ModelInfo, Piece, Session, Tokenizer
from ._train import Batch, Dataset, Metrics, Plan, Trainer, plan

__version__: str = _library.tl_version().decode()

__all__ = [
    "Batch",
    "Cancelled",
    "Dataset",
    "DtypeError",
    "Engine",
    "Error",
    "FileError",
    "FormatError",
    "InvalidError",
    "Metrics",
    "Model",
    "ModelInfo",
    "NotFoundError",
    "NumericError",
    "OutOfMemoryError",
    "Piece",
    "Plan",
    "Session",
    "ShapeError",
    "StateError",
    "Tokenizer",
    "Trainer",
    "default_engine",
    "ops",
    "plan",
    "set_default_engine",
]


def __getattr__(name: str):
    if name == "ops":  # loaded when first used, since it needs NumPy
        import importlib

        return importlib.import_module(".ops", __name__)
    raise AttributeError(f"module 'tilia' has no attribute {name!r}")
