"""Running operators: one by itself through tl_eval, several (and gradients) as graphs through plans. Both are bound to
shapes once and kept in the engine, so that a call costs a look-up, an allocation and the work."""

from __future__ import annotations

import ctypes as C
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .._engine import Engine, default_engine
from .._errors import InvalidError, ShapeError
from .._handle import Ref
from .._lib import (
    ATTR_MAX,
    DIMS,
    OP_OUTS,
    call,
    error,
    lib,
    text_of,
    tl_arg,
    tl_desc,
    tl_error,
    tl_op_def,
    tl_run_info,
)
from ._array import BF16, CARRIERS, address, np

KEPT = 512  # operators and graphs remembered by an engine, each
_c_type = {b"f": C.c_float, b"i": C.c_int32, b"l": C.c_int64, b"d": C.c_int}


class Op:
    """A row of the operator table, with the layout of its attributes as the library describes it."""

    def __init__(self, ptr: Any) -> None:
        d: tl_op_def = ptr.contents
        self.ptr, self.name, self.n_in, self.n_out = C.addressof(d), text_of(d.name), d.n_in, d.n_out
        self.attr_size, self.acc = d.attr_size, d.acc
        n = C.c_size_t()
        f = lib.tl_op_attr_fields(self.ptr, C.byref(n))
        self.fields = {text_of(f[i].name): (f[i].type, f[i].offset, f[i].count) for i in range(n.value)}

    def attr(self, values: Dict[str, Any]) -> C.Array:
        """The attribute struct, as bytes."""
        raw = (C.c_char * ATTR_MAX)()
        for name, value in values.items():
            if name not in self.fields:
                raise InvalidError(f"{self.name} has no attribute {name}", code="ARG", tensor=self.name)
            kind, offset, count = self.fields[name]
            t = _c_type[kind]
            many = value if count > 1 else (value,)
            for i, v in enumerate(many):
                t.from_buffer(raw, offset + i * C.sizeof(t)).value = v
        return raw


def _table() -> Dict[str, Op]:
    out, i = {}, 0
    while True:
        p = lib.tl_op_at(i)
        if not p:
            return out
        op = Op(p)
        out[op.name] = op
        i += 1


OPS = _table()


def fill_desc(d: tl_desc, shape: Sequence[int], number: int, strides: Optional[Sequence[int]] = None) -> None:
    if len(shape) > DIMS:
        raise ShapeError(f"an array has {len(shape)} dimensions, {DIMS} at most", code="SHAPE")
    d.dtype, d.ndim = number, len(shape)
    n = 1
    for i in range(len(shape) - 1, -1, -1):
        d.dim[i], d.stride[i] = shape[i], strides[i] if strides else n
        n *= shape[i]


def _flat_enough(a: Any) -> Any:
    """a as the library takes it: last dimension contiguous, no stride 0 or negative."""
    if a.flags.c_contiguous:
        return a
    if not a.size:
        return np.ascontiguousarray(a)
    item, shape, strides = a.itemsize, a.shape, a.strides
    if shape[-1] > 1 and strides[-1] != item:
        return np.ascontiguousarray(a)
    for d, s in zip(shape, strides):
        if d > 1 and (s <= 0 or s % item):
            return np.ascontiguousarray(a)
    return a


def _strides(a: Any) -> Optional[List[int]]:
    """In elements; None: contiguous (NumPy's strides of lengths 0 and 1 mean nothing)."""
    return None if a is None or a.flags.c_contiguous else [s // a.itemsize for s in a.strides]


class Bound:
    """An operator with the shapes of one kind of call."""

    def __init__(self, op: Op, attr: Dict[str, Any], ins: Sequence[Any], numbers: Sequence[int], want: int, acc: int,
                 outs: Sequence[Any], out_numbers: Sequence[int]) -> None:  # fmt: skip
        self.op, self.raw = op, op.attr(attr)
        self.attr = C.addressof(self.raw)
        self.n_in, self.n_out, self.acc, self.want = len(ins), op.n_out, acc, want
        self.in_args, self.out_args = (tl_arg * max(len(ins), 1))(), (tl_arg * OP_OUTS)()
        descs, given = (tl_desc * max(len(ins), 1))(), (tl_desc * OP_OUTS)()
        for i, a in enumerate(ins):
            if a is not None:
                fill_desc(descs[i], a.shape, numbers[i])
                fill_desc(self.in_args[i].d, a.shape, numbers[i], _strides(a))
        for k, a in enumerate(outs):
            if a is not None:
                fill_desc(given[k], a.shape, out_numbers[k])
        if not acc:
            call("tl_infer", op.ptr, self.attr, C.addressof(descs), len(ins), C.addressof(given))
        self.makes: List[Optional[Tuple[tuple, Any, int]]] = []
        for k in range(op.n_out):
            self.makes.append(None)
            if not want >> k & 1 or not given[k].dtype:
                continue
            shape, number = tuple(given[k].dim[: given[k].ndim]), given[k].dtype
            a = outs[k] if k < len(outs) else None
            if a is not None and (a.shape != shape or out_numbers[k] != number):
                raise ShapeError(f"{op.name}: out has shape {a.shape}, must be {shape}", code="SHAPE", tensor=op.name)
            fill_desc(self.out_args[k].d, shape, number, _strides(a))
            self.makes[k] = (shape, CARRIERS[number], number)
        self.in_ptr, self.out_ptr = C.addressof(self.in_args), C.addressof(self.out_args)
        self.ins = [self.in_args[i] for i in range(len(ins))]
        self.outs = [self.out_args[k] for k in range(op.n_out)]
        self.err = tl_error()
        self.err_ptr = C.pointer(self.err)


def _keep(cache: dict, key: Any, value: Any) -> None:
    if len(cache) >= KEPT:
        cache.pop(next(iter(cache)))  # the oldest
    cache[key] = value


_eval = lib.tl_eval


def _on_cpu(e: Engine) -> Engine:
    if e.device != "cpu":
        raise InvalidError("arrays lie in the CPU's memory; the engine in use computes elsewhere", code="DEVICE")
    return e


def run(op: Op, ins: Sequence[Any], numbers: Sequence[int], attr: tuple = (), want: int = 1, acc: int = 0,
        outs: Sequence[Any] = (), out_numbers: Sequence[int] = (), engine: Optional[Engine] = None) -> List[Any]:  # fmt: skip
    """One operator on carriers. attr: ((name, value), ...); want: bits of wanted outputs; acc: bits of outs that are
    worked on in place; outs: memory of the caller. Returns [(carrier, number) or None]."""
    e = _on_cpu(engine or default_engine())
    shapes: list = []
    ins = list(ins)
    for i, a in enumerate(ins):
        if a is None:
            shapes.append(None)
        elif a.flags.c_contiguous:
            shapes.append(a.shape)
        else:
            a = ins[i] = _flat_enough(a)
            shapes.append((a.shape, a.strides))
    mine = tuple((a.shape, a.strides) if a is not None else None for a in outs) if outs else ()
    key = (op.name, attr, want, acc, tuple(shapes), tuple(numbers), mine, tuple(out_numbers))
    with e._lock:
        ptr = e._ptr
        b = e._calls.get(key)
        if b is None:
            b = Bound(op, dict(attr), ins, numbers, want, acc, outs, out_numbers)
            _keep(e._calls, key, b)
        for a, slot in zip(ins, b.ins):
            if a is not None:
                slot.data = address(a)
        result: List[Any] = []
        for k, make in enumerate(b.makes):
            if make is None:
                result.append(None)
                continue
            o = outs[k] if k < len(outs) else None
            if o is None:
                o = np.empty(make[0], make[1])
            b.outs[k].data = address(o)
            result.append((o, make[2]))
        status = _eval(ptr, b.op.ptr, b.attr, b.in_ptr, b.n_in, b.out_ptr, b.n_out, acc, b.err_ptr)
        if status:
            raise error(b.err, status)
    return result


def remember(op: str, attr: tuple, ins: Sequence[Any], numbers: Sequence[int], want: int, quick: Any) -> None:
    """Lets a plain call that just ran be found by its short key."""
    e = default_engine()
    key = (op, attr, want, 0, tuple(a.shape if a is not None else None for a in ins), tuple(numbers), (), ())
    with e._lock:
        b = e._calls.get(key)
        if b is not None and all(make is None or make[2] != BF16 for make in b.makes):
            _keep(e._quick, quick, b)


# ---- graphs -------------------------------------------------------------------------------------------------------


class Builder:
    """A graph being built; what formulas of several operators are written with."""

    def __init__(self, engine: Engine) -> None:
        out = C.c_void_p()
        if lib.tl_graph_create(engine._ptr, C.byref(out)):
            raise MemoryError("no memory for a graph")
        self.ref = Ref(out.value, lib.tl_graph_destroy, [engine._ref] if engine._ref else [])
        self.g = out.value

    def input(self, name: str, shape: Sequence[int], number: int) -> Any:
        dims = (C.c_int64 * max(len(shape), 1))(*shape)
        return lib.tl_input(self.g, name.encode(), number, len(shape), C.addressof(dims))

    def apply(self, name: str, *ins: Any, outputs: int = 1, **attr: Any) -> Any:
        """Output 0, or the list of the first ``outputs``."""
        op = OPS[name]
        array = (C.c_void_p * max(len(ins), 1))(*ins)
        outs = (C.c_void_p * OP_OUTS)()
        raw = op.attr(attr)
        first = lib.tl_apply(self.g, op.ptr, raw, array, len(ins), None, outs, outputs)
        return first if outputs == 1 else [outs[k] for k in range(outputs)]

    def shape(self, t: Any) -> tuple:
        if not t:
            self.check()
        d = lib.tl_tensor_desc(t).contents
        return tuple(d.dim[: d.ndim])

    def number(self, t: Any) -> int:
        return lib.tl_tensor_desc(t).contents.dtype

    def reshape(self, t: Any, *shape: int) -> Any:
        return self.apply("reshape", t, ndim=len(shape), dim=list(shape) + [0] * (DIMS - len(shape)))

    def check(self) -> None:
        call("tl_graph_status", self.g)


class Graph:
    """A formula planned for shapes: run(inputs) -> outputs, or with dys -> gradients too."""

    def __init__(self, engine: Engine, formula: Callable[..., Any], attr: Dict[str, Any], ins: Sequence[Any],
                 numbers: Sequence[int], wrt: Sequence[int]) -> None:  # fmt: skip
        b = Builder(engine)
        self.inputs = [b.input(f"x{i}", a.shape, n) if a is not None else None for i, (a, n) in
                       enumerate(zip(ins, numbers))]  # fmt: skip
        y = formula(b, *self.inputs, **attr)
        ys = list(y) if isinstance(y, (list, tuple)) else [y]
        b.check()
        self.dy, results = None, ys
        if wrt:
            self.dy = b.input("dy", b.shape(ys[0]), b.number(ys[0]))
            want = (C.c_void_p * len(wrt))(*(self.inputs[i] for i in wrt))
            got = (C.c_void_p * len(wrt))()
            lib.tl_graph_vjp(b.g, ys[0], self.dy, want, len(wrt), got)
            b.check()
            results = [got[k] for k in range(len(wrt))]
        self.outputs: List[Any] = []
        for k, t in enumerate(results):
            if t:
                lib.tl_output(b.g, t, f"y{k}".encode())
                self.outputs.append((t, b.shape(t), CARRIERS[b.number(t)], b.number(t)))
            else:
                self.outputs.append(None)
        self.y_shape = b.shape(ys[0])
        out = C.c_void_p()
        call("tl_plan_create", b.g, False, C.byref(out))
        self.plan, self.graph = Ref(out.value, lib.tl_plan_destroy, [b.ref]), b.ref
        b.ref.drop()

    def run(self, ins: Sequence[Any], dy: Any = None, info: Any = None) -> List[Any]:
        p = self.plan.ptr
        given = [(t, a) for t, a in zip(self.inputs, ins) if t]
        if self.dy:
            given.append((self.dy, dy))
        result: List[Any] = []
        for o in self.outputs:
            a = np.empty(o[1], o[2]) if o else None
            result.append((a, o[3]) if o else None)
            if o:
                given.append((o[0], a))
        for t, a in given:
            if lib.tl_plan_bind(p, t, address(a)):
                raise error(tl_error(), -2)
        if info is not None:
            lib.tl_plan_run_info(p, C.byref(info))
        status = lib.tl_plan_run(p)
        if status:
            raise error(tl_error(), status)
        return result


def run_graph(name: str, formula: Callable[..., Any], ins: Sequence[Any], numbers: Sequence[int], attr: tuple = (),
              wrt: Sequence[int] = (), dy: Any = None, info: Optional[tl_run_info] = None,
              engine: Optional[Engine] = None) -> List[Any]:  # fmt: skip
    """A formula on carriers; with wrt, the gradients of its first output's product with dy for these inputs."""
    e = _on_cpu(engine or default_engine())
    ins = [np.ascontiguousarray(a) if a is not None else None for a in ins]
    key = (name, attr, tuple(a.shape if a is not None else None for a in ins), tuple(numbers), tuple(wrt))
    with e._lock:
        e._ptr
        g = e._graphs.get(key)
        if g is None:
            g = Graph(e, formula, dict(attr), ins, numbers, wrt)
            _keep(e._graphs, key, g)
        if dy is not None:
            dy = np.ascontiguousarray(dy)
            if dy.shape != g.y_shape:
                raise ShapeError(f"{name}: dy has shape {dy.shape}, must be {g.y_shape}", code="SHAPE", tensor=name)
        return g.run(ins, dy, info)
