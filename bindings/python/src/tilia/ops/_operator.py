"""How a function becomes an operator: called it computes, ``.vjp(dy, ...)`` gives gradients."""

from __future__ import annotations

import functools
from typing import Any, Callable, NamedTuple, Optional, Sequence, Tuple

from .._errors import ShapeError
from .._engine import default_engine
from .._lib import error, lib
from ._array import address, give, np, take, take_ids
from ._run import OPS, remember, run, run_graph

_eval = lib.tl_eval


class Row(NamedTuple):
    """A call of one row of the operator table."""

    op: str
    ins: Tuple[Any, ...]  # arrays or None
    attr: tuple  # ((name, value), ...)
    lead: Tuple[int, ...] = (0,)  # inputs with leading dimensions
    ints: Tuple[int, ...] = ()  # inputs that are int32


class Formula(NamedTuple):
    """A call of several rows: build(b, *inputs, **attr) makes them."""

    name: str
    build: Callable[..., Any]
    ins: Tuple[Any, ...]
    attr: tuple
    lead: Tuple[int, ...] = (0,)
    ints: Tuple[int, ...] = ()
    info: Any = None


def _carriers(spec: Any) -> Tuple[list, list]:
    carriers, numbers = [], []
    for i, x in enumerate(spec.ins):
        if x is None:
            carriers.append(None)
            numbers.append(0)
        elif i in spec.ints:
            carriers.append(take_ids(x))
            numbers.append(5)
        else:
            a, n = take(x)
            carriers.append(a)
            numbers.append(n)
    return carriers, numbers


def _fold(spec: Any, carriers: list, most: int) -> Optional[Tuple[int, ...]]:
    """More leading dimensions than the library has are folded into one; None if nothing was folded."""
    lead = None
    for i in spec.lead:
        a = carriers[i]
        if a is None:
            continue
        keep = 0 if i in spec.ints else 1  # ids are all leading
        if a.ndim + (1 - keep) <= most and not (a.ndim == 0):
            continue
        lead = a.shape[: a.ndim - keep]
    if lead is None:
        return None
    for i in spec.lead:
        a = carriers[i]
        if a is None:
            continue
        tail = () if i in spec.ints else a.shape[-1:]
        if a.ndim == 0 and not (i in spec.ints):
            raise ShapeError("an array has no dimension", code="SHAPE")
        carriers[i] = a.reshape((-1,) + tail)
    return lead


def _unfold(lead: Optional[Tuple[int, ...]], a: Any) -> Any:
    return a if lead is None else a.reshape(lead + a.shape[1:])


_ndarray, _empty = np.ndarray, np.empty


def _quick_key(spec: Row, want: int) -> Optional[tuple]:
    """Everything that a plain call depends on; None if it is not plain: contiguous NumPy arrays only."""
    key = [spec.op, want, spec.attr]
    for x in spec.ins:
        if x is None:
            key.append(None)
        elif type(x) is _ndarray and x.flags.c_contiguous:
            key.append(x.shape)
            key.append(x.dtype.char)
        else:
            return None
    return tuple(key)


def _quick(e: Any, b: Any, spec: Row) -> Any:
    """A call that has been seen before."""
    outs = [None if make is None else _empty(make[0], make[1]) for make in b.makes]
    with e._lock:
        for x, slot in zip(spec.ins, b.ins):
            if x is not None:
                slot.data = address(x)
        for x, slot in zip(outs, b.outs):
            if x is not None:
                slot.data = address(x)
        status = _eval(e._ptr, b.op.ptr, b.attr, b.in_ptr, b.n_in, b.out_ptr, b.n_out, 0, b.err_ptr)
        if status:
            raise error(b.err, status)
    if b.want == 1:
        return outs[0]
    return tuple(outs)


def forward(spec: Any, want: int = 1, out: Any = None) -> Any:
    quick = None
    if out is None and type(spec) is Row:
        quick = _quick_key(spec, want)
        if quick is not None:
            e = default_engine()
            b = e._quick.get(quick)
            if b is not None:
                return _quick(e, b, spec)
    carriers, numbers = _carriers(spec)
    plain = quick is not None and all(a is x for a, x in zip(carriers, spec.ins))
    lead = _fold(spec, carriers, 4)
    if type(spec) is Row:
        outs, out_numbers = (), ()
        if out is not None:
            o, n = take(out)
            outs, out_numbers = (o if lead is None else o.reshape((-1,) + o.shape[len(lead) :]),), (n,)
            if not np.shares_memory(o, outs[0]):
                raise ShapeError("out cannot be written without a copy", code="SHAPE")
        got = run(OPS[spec.op], carriers, numbers, spec.attr, want, 0, outs, out_numbers)
        if plain and lead is None:
            remember(spec.op, spec.attr, carriers, numbers, want, quick)
    else:
        got = run_graph(spec.name, spec.build, carriers, numbers, spec.attr, info=spec.info)
    if out is not None:
        if type(spec) is not Row:
            o, n = take(out)
            o[...] = _unfold(lead, got[0][0])
        return out
    if want == 1 and (type(spec) is Row or len(got) == 1):
        return give(_unfold(lead, got[0][0]), got[0][1])
    return tuple(None if g is None else give(_unfold(lead, g[0]), g[1]) for g in got)


def _row_formula(op: str, b: Any, *ins: Any, **attr: Any) -> Any:
    return b.apply(op, *ins, **attr)


_row_builds = {name: functools.partial(_row_formula, name) for name in OPS}


def gradients(spec: Any, dy: Any, wrt: Optional[Sequence[int]] = None) -> tuple:
    """d<dy, f(ins)>/d ins: one array an input, None for integers, absent inputs and those not in wrt."""
    carriers, numbers = _carriers(spec)
    lead = _fold(spec, carriers, 4)
    if wrt is None:
        wrt = [i for i, (a, n) in enumerate(zip(carriers, numbers)) if a is not None and n in (1, 2, 3, 4)]
    d = take(dy)[0]
    if lead is not None:
        d = d.reshape((-1,) + d.shape[len(lead) :])
    build = _row_builds[spec.op] if type(spec) is Row else spec.build
    name = spec.op if type(spec) is Row else spec.name
    got = run_graph(name, build, carriers, numbers, spec.attr, tuple(wrt), d,
                    spec.info if type(spec) is Formula else None)  # fmt: skip
    result: list = [None] * len(spec.ins)
    for i, g in zip(wrt, got):
        if g is None:
            result[i] = np.zeros(carriers[i].shape, carriers[i].dtype)
        else:
            result[i] = give(_unfold(lead if i in spec.lead else None, g[0]), g[1])
    return tuple(result)


class Operator:
    """A function of arrays with its vector-Jacobian product."""

    def __init__(self, spec: Callable[..., Any]) -> None:
        self._spec = spec
        functools.update_wrapper(self, spec)

    def __call__(self, *args: Any, out: Any = None, **options: Any) -> Any:
        return forward(self._spec(*args, **options), 1, out)

    def vjp(self, dy: Any, *args: Any, **options: Any) -> tuple:
        """Gradients of sum(dy * f(...)) for the positional array arguments, in their order; None for integers and
        absent ones. dy: as the result."""
        return gradients(self._spec(*args, **options), dy)

    def __repr__(self) -> str:
        return f"<tilia.ops.{self.__name__}>"


def operator(spec: Callable[..., Any]) -> Operator:
    return Operator(spec)
