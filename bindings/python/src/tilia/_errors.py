"""Exceptions: the library's status codes as the classes a Python program expects."""

from __future__ import annotations

from typing import Any, Optional


class Error(Exception):
    """Anything that the library refuses. Every error is also an OSError, ValueError or MemoryError.

    Attributes: ``code`` ("SHAPE", "IO" ...), ``text`` (what is wrong, without the place), and the place, each None if
    not known: ``file``, ``tensor`` (tensor, operator or key), ``offset`` (bytes), ``line``.

    >>> import tilia
    >>> try:
    ...     tilia.Model.open("no/such/place")
    ... except FileNotFoundError as e:
    ...     e.code
    'NOTFOUND'
    """

    code: str = "INTERNAL"
    text: str = ""
    file: Optional[str] = None
    tensor: Optional[str] = None
    offset: Optional[int] = None
    line: Optional[int] = None

    def __init__(self, message: str = "", **place: Any) -> None:
        super().__init__(message)
        self.text = message
        for key, value in place.items():
            setattr(self, key, value)

    def __str__(self) -> str:  # OSError would print errno's form
        return str(self.args[0]) if self.args else ""

    def __reduce__(self):  # errors cross process borders
        return _remake, (type(self), self.args, dict(self.__dict__))


def _remake(cls: type, args: tuple, state: dict) -> "Error":
    e = cls(*args)
    e.__dict__.update(state)
    return e


class InvalidError(Error, ValueError):
    """Wrong arguments, shapes, number types, configurations or contents of files."""


class ShapeError(InvalidError):
    """Shapes do not fit."""


class DtypeError(InvalidError):
    """A number type is not accepted here."""


class FormatError(InvalidError):
    """A file's content is not what its format says, or its checksum differs."""


class StateError(InvalidError):
    """Called in the wrong order, or on something that is closed."""


class NumericError(InvalidError):
    """A number is not finite."""


class Cancelled(InvalidError):
    """A callback stopped the work."""


class FileError(Error, OSError):
    """Reading or writing failed, no space, in use by another process, or the device is not there."""


class NotFoundError(FileError, FileNotFoundError):
    """No such file."""


class OutOfMemoryError(Error, MemoryError):
    """The library's allocator had no memory."""


# status.def: number -> name, class
CODES = {
    -1: ("NOMEM", OutOfMemoryError),
    -2: ("ARG", InvalidError),
    -3: ("SHAPE", ShapeError),
    -4: ("DTYPE", DtypeError),
    -5: ("UNSUPPORTED", InvalidError),
    -6: ("IO", FileError),
    -7: ("NOTFOUND", NotFoundError),
    -8: ("FORMAT", FormatError),
    -9: ("CHECKSUM", FormatError),
    -10: ("CONFIG", InvalidError),
    -11: ("LIMIT", InvalidError),
    -12: ("STATE", StateError),
    -13: ("BUSY", FileError),
    -14: ("CANCELLED", Cancelled),
    -15: ("NUMERIC", NumericError),
    -16: ("NOSPACE", FileError),
    -17: ("DEVICE", FileError),
    -18: ("INTERNAL", InvalidError),
}
