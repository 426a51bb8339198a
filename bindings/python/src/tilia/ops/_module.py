"""A whole model, or some of its blocks, as one differentiable function of arrays under Hugging Face's names."""

from __future__ import annotations

import ctypes as C
import json
from typing import Any, Dict, List, Optional, Tuple, Union

from .._engine import Engine
from .._errors import ShapeError
from .._handle import Handle
from .._lib import call, lib, tl_module_options
from .._text import Model, config_text
from ._array import np, take, take_ids


class _Plan(Handle):
    def __init__(self, model: Model, rows: int, context: int, first: int, blocks: int, packed: bool) -> None:
        o = tl_module_options(rows, context, first, blocks, packed)
        out = C.c_void_p()
        call("tl_module_create", model._ptr, C.byref(o), C.byref(out))
        self._own(out.value, lib.tl_module_destroy, model)


class Module:
    """A function of arrays: the whole model, ids (..., T) -> logits (..., T, V), or blocks, x (..., T, D) -> (..., T, D);
    f32, without dropout, with the weights of ``model`` as they are when it is called. Plans are kept by shape.

    Calls take positions=(..., T) and documents=(..., T), the index in the row where a token's document starts.
    ``vjp(dy, x)`` gives (dx or None, {name: gradient}).

    >>> import numpy as np, tilia
    >>> f = tilia.ops.Module(tilia.Model.create("preset:tiny", seed=1))
    >>> f([[1, 2, 3]]).shape
    (1, 3, 257)
    >>> _, grads = f.vjp(np.ones((1, 3, 257), "f4"), [[1, 2, 3]])
    >>> grads["model.norm.weight"].shape
    (64,)
    """

    KEPT = 16

    def __init__(self, model: Model, first: int = 0, blocks: int = 0) -> None:
        self.model, self.first, self.blocks = model, first, blocks
        self._plans: Dict[tuple, _Plan] = {}
        self._width = model.info.width if blocks else model.info.vocab

    def _input(self, x: Any) -> Tuple[Any, tuple]:
        if self.blocks:
            a = np.ascontiguousarray(take(x)[0], np.float32)
            if a.ndim < 2 or a.shape[-1] != self._width:
                raise ShapeError(f"x has shape {a.shape}, must be (..., T, {self._width})", code="SHAPE")
            return a, a.shape[:-1]
        a = np.ascontiguousarray(take_ids(x))
        if a.ndim < 1:
            raise ShapeError("ids must have a dimension", code="SHAPE")
        return a, a.shape

    def _plan(self, shape: tuple, positions: Any, documents: Any) -> _Plan:
        rows = int(np.prod(shape[:-1], dtype=np.int64))
        key = (rows, shape[-1], documents is not None)
        p = self._plans.get(key)
        if p is None:
            if len(self._plans) >= self.KEPT:
                self._plans.pop(next(iter(self._plans))).close()
            p = self._plans[key] = _Plan(self.model, rows, shape[-1], self.first, self.blocks, documents is not None)
        pos = np.arange(shape[-1], dtype=np.int32) if positions is None else take_ids(positions)
        pos = np.ascontiguousarray(np.broadcast_to(pos, shape))
        doc = None if documents is None else np.ascontiguousarray(np.broadcast_to(take_ids(documents), shape))
        call("tl_module_documents", p._ptr, pos.ctypes.data, None if doc is None else doc.ctypes.data)
        return p

    def __call__(self, x: Any, *, positions: Any = None, documents: Any = None) -> Any:
        a, shape = self._input(x)
        out = np.empty(shape + (self._width,), np.float32)
        with self.model._engine._lock:
            p = self._plan(shape, positions, documents)
            call("tl_module_run", p._ptr, a.ctypes.data, out.ctypes.data)
        return out

    def vjp(self, dy: Any, x: Any, *, positions: Any = None, documents: Any = None) -> Tuple[Any, Dict[str, Any]]:
        """(dx, gradients): dx is None for ids; gradients of sum(dy * f(x)) for every tensor by name."""
        _, dx, grads = self.value_and_vjp(dy, x, positions=positions, documents=documents)
        return dx, grads

    def value_and_vjp(self, dy: Any, x: Any, *, positions: Any = None, documents: Any = None) -> Tuple[Any, Any, dict]:
        """(f(x), dx, gradients) by one run."""
        a, shape = self._input(x)
        d = np.ascontiguousarray(take(dy)[0], np.float32)
        if d.shape != shape + (self._width,):
            raise ShapeError(f"dy has shape {d.shape}, must be {shape + (self._width,)}", code="SHAPE")
        out = np.empty(d.shape, np.float32)
        dx = np.empty(a.shape, np.float32) if self.blocks else None
        with self.model._engine._lock:
            p = self._plan(shape, positions, documents)
            call("tl_module_vjp", p._ptr, a.ctypes.data, d.ctypes.data, out.ctypes.data,
                 None if dx is None else dx.ctypes.data)  # fmt: skip
            grads = {}
            for name, (i, dims, _) in self.model._tensors().items():
                g = np.empty(dims, np.float32)
                call("tl_module_grad", p._ptr, i, g.ctypes.data)
                grads[name] = g
        return out, dx, grads

    def close(self) -> None:
        """Gives the plans' memory back."""
        for p in self._plans.values():
            p.close()
        self._plans.clear()


def model(config: Union[str, Dict[str, Any]], tensors: Dict[str, Any], *, engine: Optional[Engine] = None) -> Module:
    """The model of a config.json (dict, text or path) with the weights ``tensors``, named as in Hugging Face's files
    (copied): a Module, ids (..., T) -> logits (..., T, V).

    >>> import tilia
    >>> m = tilia.Model.create("preset:tiny", seed=1)
    >>> f = tilia.ops.model("preset:tiny", m.state_dict())
    >>> bool((f([1, 2]) == tilia.ops.Module(m)([1, 2])).all())
    True
    """
    m = Model.create(config, engine=engine)
    m.load_state_dict(tensors)
    return Module(m)


def block(config: Union[str, Dict[str, Any]], tensors: Dict[str, Any], layer: int = 0, *,
          engine: Optional[Engine] = None) -> Module:  # fmt: skip
    """Block number ``layer`` of a configuration, from a dict that holds at least its tensors: x (..., T, D) -> the same.

    >>> import numpy as np, tilia
    >>> m = tilia.Model.create("preset:tiny", seed=1)
    >>> f = tilia.ops.block("preset:tiny", m.state_dict(), layer=1)
    >>> f(np.ones((2, 5, 64), "f4")).shape
    (2, 5, 64)
    """
    text = config_text(config)
    if text.startswith(b"{"):  # the embedding is not needed
        c = json.loads(text)
        c.update(vocab_size=8, bos_token_id=None, eos_token_id=None, pad_token_id=None)
        text = json.dumps(c).encode()
    m = Model.create(text.decode(), engine=engine)
    mine = _layer_names(m, layer)
    given = {k: v for k, v in tensors.items() if any(k == n or k.endswith("." + n) or n.endswith("." + k) for n in mine)}
    missing = [n for n in mine if not any(k == n or k.endswith("." + n) or n.endswith("." + k) for k in given)]
    if missing:
        raise ValueError(f"{missing[0]}: is missing")
    m.load_state_dict(given, strict=False)
    return Module(m, layer, 1)


def _layer_names(m: Model, layer: int) -> List[str]:
    if not 0 <= layer < m.info.layers:
        raise ValueError(f"the model has layers 0 to {m.info.layers - 1}, not {layer}")
    part = f".{layer}."
    return [n for n in m._tensors() if part in n and not any(f".{i}." in n.split(part)[0] + "." for i in range(layer))]


__all__ = ["Module", "block", "model"]
