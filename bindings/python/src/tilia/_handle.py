"""Ownership: every object of the library dies after what was made from it, in whatever order Python lets go of them."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Callable, Iterable, Optional, TypeVar

from ._errors import StateError

_counting = threading.RLock()  # re-entered when a collection runs finalizers inside
_generation = [0]  # grows in a forked child, where the engine's threads do not exist


class Ref:
    """One pointer of the library and the pointers it must not outlive."""

    __slots__ = ("ptr", "destroy", "parents", "users", "dropped", "generation", "__weakref__")

    def __init__(self, ptr: Any, destroy: Callable[[Any], None], parents: Iterable["Ref"] = ()) -> None:
        self.ptr, self.destroy, self.parents = ptr, destroy, []
        self.users, self.dropped, self.generation = 0, False, _generation[0]
        for p in parents:
            self.uses(p)

    def uses(self, parent: "Ref") -> None:
        with _counting:
            parent.users += 1
            self.parents.append(parent)

    def drop(self) -> None:
        with _counting:
            self.dropped = True
            self._free()

    def _free(self) -> None:
        if self.users or not self.dropped or not self.ptr:
            return
        ptr, self.ptr = self.ptr, None
        if self.generation == _generation[0]:  # a child of fork only forgets
            self.destroy(ptr)
        parents, self.parents = self.parents, []
        for p in parents:
            p.users -= 1
            p._free()

    def __del__(self) -> None:
        self.drop()


T = TypeVar("T", bound="Handle")


class Handle:
    """What Engine, Model, Session ... share: ``with``, ``close()``, ``closed``."""

    _ref: Optional[Ref] = None
    _children: "weakref.WeakSet[Handle]"

    def _own(self, ptr: Any, destroy: Callable[[Any], None], *parents: "Handle") -> None:
        self._children = weakref.WeakSet()
        self._ref = Ref(ptr, destroy, [p._ref for p in parents if p._ref is not None])
        for p in parents:
            p._children.add(self)

    @property
    def _ptr(self) -> Any:
        ref = self._ref
        if ref is None or not ref.ptr or ref.dropped:
            raise StateError(f"this {type(self).__name__} is closed", code="STATE")
        if ref.generation != _generation[0]:
            raise StateError(f"this {type(self).__name__} was made before fork(); make one in the child", code="STATE")
        return ref.ptr

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._ref is None or self._ref.dropped

    def close(self) -> None:
        """Gives the memory back now; what was made from this is closed first. Twice is fine."""
        if self._ref is None or self._ref.dropped:
            return
        for child in list(self._children):
            child.close()
        self._ref.drop()

    def __enter__(self: T) -> T:
        self._ptr
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def _forked() -> None:
    _generation[0] += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
