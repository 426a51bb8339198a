"""The engine: threads and kernels. Programs that do not ask get one by themselves."""

from __future__ import annotations

import ctypes as C
import logging
import threading
from typing import Optional

from . import _handle
from ._handle import Handle
from ._lib import LOG_FN, call, lib, text_of, tl_engine_options

log = logging.getLogger("tilia")
log.addHandler(logging.NullHandler())

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


@LOG_FN
def _to_logging(user, level, line):
    log.log(_LEVELS[level] if 0 <= level < 4 else logging.INFO, "%s", text_of(line))


class Engine(Handle):
    """Threads, kernels and memory that models and operators use.

    threads: 0 as many as the process has cores (or TILIA_THREADS); isa: a cap, "ref", "avx2", "avx512" or
    "avx512bf16"; device: "cpu" or "cuda". What the library has to say goes to ``logging.getLogger("tilia")``.

    One engine computes one thing at a time; other threads wait for it. Errors: ValueError, OSError (no such device).

    >>> import tilia
    >>> with tilia.Engine(threads=1) as e:
    ...     e.threads
    1
    """

    def __init__(self, threads: int = 0, isa: Optional[str] = None, device: Optional[str] = None) -> None:
        o = tl_engine_options(
            log=_to_logging,
            log_level=3,
            threads=threads,
            isa=isa.encode() if isa else None,
            device=device.encode() if device else None,
        )
        out = C.c_void_p()
        call("tl_engine_create", C.byref(o), C.byref(out))
        self._own(out.value, lib.tl_engine_destroy)
        self.device = device or "cpu"
        self._lock = threading.RLock()
        self._calls: dict = {}  # operators bound to shapes: ops/
        self._quick: dict = {}
        self._graphs: dict = {}

    @property
    def threads(self) -> int:
        """Threads that compute."""
        return lib.tl_engine_threads(self._ptr)

    @property
    def isa(self) -> str:
        """The instruction sets in use, e.g. "avx512bf16"."""
        return text_of(lib.tl_engine_isa(self._ptr))

    def close(self) -> None:
        with self._lock:  # not under a call of another thread
            self._calls.clear()
            self._quick.clear()
            self._graphs.clear()
            super().close()

    def __repr__(self) -> str:
        return "<tilia.Engine closed>" if self.closed else f"<tilia.Engine {self.isa}, {self.threads} threads>"


_default: Optional[Engine] = None
_default_generation = -1
_making = threading.Lock()


def default_engine() -> Engine:
    """The engine used where none is given; made when first needed, anew after close() and in a forked child."""
    global _default, _default_generation
    e = _default
    if e is not None and not e._ref.dropped and _default_generation == _handle._generation[0]:
        return e
    with _making:
        if _default is None or _default.closed or _default_generation != _handle._generation[0]:
            _default, _default_generation = Engine(), _handle._generation[0]
        return _default


def set_default_engine(engine: Optional[Engine]) -> None:
    """Makes ``engine`` the one used where none is given; None: a new one when needed."""
    global _default, _default_generation
    with _making:
        _default, _default_generation = engine, _handle._generation[0]
