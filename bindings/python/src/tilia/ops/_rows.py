"""Operators that are one row of the library's table each; formulas as in src/op/ops.def."""

from __future__ import annotations

from typing import Any

from ._array import dtype_number, give, np, take, take_ids
from ._operator import Row, operator
from ._run import OPS, run

KINDS = ("relu", "gelu", "gelu_tanh", "silu", "relu2", "sigmoid", "tanh", "identity")


def _kind(name: str) -> int:
    if name not in KINDS:
        raise ValueError(f'kind is "{name}"; it can be {", ".join(KINDS)}')
    return KINDS.index(name)


@operator
def linear(x: Any, weight: Any, bias: Any = None, *, dtype: Any = None) -> Any:
    """x w^T + b. x (..., K), weight (N, K), bias (N) f32 -> (..., N) of dtype (x's).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.linear(np.ones((2, 3), "f4"), np.ones((4, 3), "f4"), np.ones(4, "f4"))[0]
    array([4., 4., 4., 4.], dtype=float32)
    """
    return Row("linear", (x, weight, bias), (("dtype", dtype_number(dtype)),))


@operator
def embedding(ids: Any, table: Any, *, scale: float = 1.0, dtype: Any = None) -> Any:
    """scale * table[ids]. ids (...) integers, table (V, D) -> (..., D). A negative id gives zeros. Errors: ValueError
    for an id beyond the table.

    >>> import numpy as np, tilia.ops as ops
    >>> ops.embedding([1, 0], np.array([[1, 2], [3, 4]], "f4")).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    ids = take_ids(ids)
    rows = take(table)[0].shape[0]
    if ids.size and ids.max() >= rows:
        raise ValueError(f"id {ids.max()} is outside the table of {rows} rows")
    return Row("embedding", (ids, table), (("scale", float(scale)), ("dtype", dtype_number(dtype))), (0,), (0,))


@operator
def layernorm(x: Any, weight: Any = None, bias: Any = None, *, eps: float = 1e-5) -> Any:
    """(x - mean) / sqrt(var + eps) * w + b over the last dimension. x (..., D), weight, bias (D) f32 -> (..., D).

    >>> import numpy as np, tilia.ops as ops
    >>> float(abs(ops.layernorm(np.arange(8, dtype="f4")).mean())) < 1e-6
    True
    """
    return Row("layernorm", (x, weight, bias), (("eps", float(eps)),))


@operator
def rmsnorm(x: Any, weight: Any = None, *, eps: float = 1e-6, offset: float = 0.0) -> Any:
    """x / sqrt(mean(x^2) + eps) * (offset + w). x (..., D), weight (D) f32 -> (..., D).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.rmsnorm(np.full(4, 3, "f4")).round(3).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    return Row("rmsnorm", (x, weight), (("eps", float(eps)), ("offset", float(offset))))


@operator
def scalenorm(x: Any, gain: Any, *, eps: float = 1e-6) -> Any:
    """g x / sqrt(mean(x^2) + eps). x (..., D), gain (1) f32 -> (..., D).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.scalenorm(np.full(4, 3, "f4"), [2.0]).round(3).tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    return Row("scalenorm", (x, gain), (("eps", float(eps)),))


@operator
def act(x: Any, kind: str) -> Any:
    """An activation by name: relu, gelu (with erf), gelu_tanh, silu, relu2, sigmoid, tanh, identity. x (...) -> (...).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.act(np.array([-1, 2], "f4"), "relu2").tolist()
    [0.0, 4.0]
    """
    return Row("act", (x,), (("kind", _kind(kind)),))


def _activation(name: str, formula: str) -> Any:
    number = _kind(name)

    def f(x: Any) -> Any:
        return Row("act", (x,), (("kind", number),))

    f.__name__ = f.__qualname__ = name
    f.__doc__ = f"""{formula}, element by element. x (...) -> (...).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.{name}(np.zeros(3, "f4")).shape
    (3,)
    """
    return operator(f)


relu = _activation("relu", "max(x, 0)")
gelu = _activation("gelu", "x Phi(x), with erf")
gelu_tanh = _activation("gelu_tanh", "GELU by its tanh approximation")
silu = _activation("silu", "x sigmoid(x)")
relu2 = _activation("relu2", "max(x, 0)^2")
sigmoid = _activation("sigmoid", "1 / (1 + exp(-x))")
tanh = _activation("tanh", "tanh x")


@operator
def glu(gate: Any, up: Any, kind: str = "silu") -> Any:
    """act(gate) * up. Two arrays (..., F) -> (..., F).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.glu(np.ones(2, "f4"), np.full(2, 3, "f4"), "relu").tolist()
    [3.0, 3.0]
    """
    return Row("glu", (gate, up), (("kind", _kind(kind)),), (0, 1))


@operator
def swiglu(gate: Any, up: Any) -> Any:
    """silu(gate) * up. Two arrays (..., F) -> (..., F).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.swiglu(np.zeros(2, "f4"), np.ones(2, "f4")).tolist()
    [0.0, 0.0]
    """
    return Row("glu", (gate, up), (("kind", 3),), (0, 1))


@operator
def geglu(gate: Any, up: Any) -> Any:
    """gelu(gate) * up. Two arrays (..., F) -> (..., F).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.geglu(np.zeros(2, "f4"), np.ones(2, "f4")).tolist()
    [0.0, 0.0]
    """
    return Row("glu", (gate, up), (("kind", 1),), (0, 1))


@operator
def add(a: Any, b: Any) -> Any:
    """a + b, same shapes.

    >>> import numpy as np, tilia.ops as ops
    >>> ops.add(np.ones(2, "f4"), np.ones(2, "f4")).tolist()
    [2.0, 2.0]
    """
    return Row("add", (a, b), (), (0, 1))


@operator
def mul(a: Any, b: Any) -> Any:
    """a * b, same shapes.

    >>> import numpy as np, tilia.ops as ops
    >>> ops.mul(np.full(2, 3, "f4"), np.full(2, 3, "f4")).tolist()
    [9.0, 9.0]
    """
    return Row("mul", (a, b), (), (0, 1))


@operator
def scale(x: Any, by: float) -> Any:
    """by * x; by 0 gives zeros and does not read x.

    >>> import numpy as np, tilia.ops as ops
    >>> ops.scale(np.ones(2, "f4"), 0.5).tolist()
    [0.5, 0.5]
    """
    return Row("scale", (x,), (("by", float(by)),))


@operator
def softmax(x: Any) -> Any:
    """exp(x - max) / sum over the last dimension. x (..., D) -> (..., D).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.softmax(np.array([1e4, 1e4], "f4")).tolist()
    [0.5, 0.5]
    """
    return Row("softmax", (x,), ())


@operator
def softcap(x: Any, cap: float) -> Any:
    """cap tanh(x / cap). x (...) -> (...).

    >>> import numpy as np, tilia.ops as ops
    >>> float(ops.softcap(np.array([1e6], "f4"), 30.0)[0])
    30.0
    """
    return Row("softcap", (x,), (("cap", float(cap)),))


@operator
def reduce(x: Any, kind: str = "all", *, mean: bool = False) -> Any:
    """Sum or mean: "all" -> (1), "rows" (over all dimensions but the last) -> (D), "last" -> (...). x (..., D).

    >>> import numpy as np, tilia.ops as ops
    >>> ops.reduce(np.ones((2, 3), "f4"), "rows").tolist()
    [2.0, 2.0, 2.0]
    """
    kinds = ("all", "rows", "last")
    if kind not in kinds:
        raise ValueError(f'kind is "{kind}"; it can be all, rows or last')
    return Row("reduce", (x,), (("kind", kinds.index(kind)), ("mean", int(mean))), ())


@operator
def cast(x: Any, dtype: Any) -> Any:
    """x in another number type: "f32", "f64", "bf16", "f16" or a NumPy dtype. bf16 comes as ml_dtypes' type if that is
    installed, else as tilia.ops.Array.

    >>> import numpy as np, tilia.ops as ops
    >>> ops.cast(ops.cast(np.ones(2, "f4"), "bf16"), "f32").tolist()
    [1.0, 1.0]
    """
    return Row("cast", (x,), (("dtype", dtype_number(dtype)),))


def linear_cross_entropy(
    h: Any,
    weight: Any,
    targets: Any,
    bias: Any = None,
    *,
    smoothing: float = 0.0,
    zloss: float = 0.0,
    softcap: float = 0.0,
    grad: bool = False,
) -> Any:
    """The loss head: mean cross-entropy of h w^T against targets, by row chunks, so that the logits never exist.
    h (..., D), weight (V, D), targets (...) integers (negative: not counted) -> the mean loss in nats, a float; with
    grad (loss, dh, dweight, dbias), made in the same sweep.

    >>> import numpy as np, tilia.ops as ops
    >>> round(ops.linear_cross_entropy(np.zeros((3, 4), "f4"), np.zeros((10, 4), "f4"), [1, 2, 3]), 4)
    2.3026
    """
    hc, hn = take(h)
    shape = hc.shape
    hc = hc.reshape(-1, shape[-1])
    wc, wn = take(weight)
    t = np.ascontiguousarray(np.asarray(targets).reshape(-1), dtype=np.int32)
    _check_targets(t, wc.shape[0])
    s = np.float64 if hn == 2 else np.float32
    denom = np.array([np.count_nonzero(t >= 0)], s)
    bc = None if bias is None else take(bias)[0]
    sn = 2 if hn == 2 else 1
    want = 1 | (0b111000 if grad and bias is not None else 0b011000 if grad else 0)
    # the weight's and the bias's gradients are added into what is there
    got = run(OPS["loss_head"], [hc, wc, t, denom, bc], [hn, wn, 5, sn, sn if bc is not None else 0],
              (("smoothing", float(smoothing)), ("zloss", float(zloss)), ("softcap", float(softcap))), want)  # fmt: skip
    loss = float(got[0][0][0])
    if not grad:
        return loss
    return (loss, give(got[3][0].reshape(shape), got[3][1]), got[4][0], got[5][0] if bias is not None else None)


def _check_targets(t: Any, classes: int) -> None:
    if t.size and t.max() >= classes:
        raise ValueError(f"target {t.max()} is outside the {classes} classes")


def apply(op: str, *ins: Any, outputs: int = 1, **attr: Any) -> Any:
    """Any row of the operator table by its name (src/op/ops.def), inputs and attributes as there; None: absent.
    Returns output 0, or a tuple of the first ``outputs``.

    >>> import numpy as np, tilia.ops as ops
    >>> y, rstd = ops.apply("rmsnorm", np.full((1, 4), 2, "f4"), outputs=2, eps=0.0)
    >>> float(rstd[0])
    0.5
    """
    if op not in OPS:
        raise ValueError(f'no operator "{op}"; there are {", ".join(sorted(OPS))}')
    carriers, numbers = [], []
    for x in ins:
        a, n = take(x) if x is not None else (None, 0)
        carriers.append(a)
        numbers.append(n)
    got = run(OPS[op], carriers, numbers, tuple(sorted(attr.items())), (1 << outputs) - 1)
    if outputs == 1:
        return give(*got[0])
    return tuple(None if g is None else give(*g) for g in got[:outputs])


def names() -> list:
    """Names of all rows of the operator table.

    >>> import tilia.ops as ops
    >>> "attention" in ops.names()
    True
    """
    return sorted(OPS)


__all__ = [
    "act", "add", "apply", "cast", "embedding", "geglu", "gelu", "gelu_tanh", "glu", "layernorm", "linear",
    "linear_cross_entropy", "mul", "names", "reduce", "relu", "relu2", "rmsnorm", "scale", "scalenorm", "sigmoid",
    "silu", "softcap", "softmax", "swiglu", "tanh",
]  # fmt: skip
