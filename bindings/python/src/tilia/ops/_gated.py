"""Gated attention units and mixed chunks (Hua et al. 2022): the attention rows, and the layers around them."""

from __future__ import annotations

from typing import Any

from .._errors import ShapeError
from ._array import give, take
from ._operator import Formula, Row, forward, gradients, operator

KINDS = ("relu2", "laplace", "softplus2", "smooth2", "smooth1", "identity", "softmax", "l2", "relu2_sum")
COUNTS = ("none", "visible", "fixed", "length")


def _gate(kind: str, count: str, causal: bool, alpha: float, bias_scale: float, eps: float, fixed: float,
          kappa: bool) -> tuple:  # fmt: skip
    for what, name, names in (("kind", kind, KINDS), ("count", count, COUNTS)):
        if name not in names:
            raise ValueError(f'{what} is "{name}"; it can be {", ".join(names)}')
    return (("alpha", float(alpha)), ("bias_scale", float(bias_scale)), ("eps", float(eps)), ("fixed", float(fixed)),
            ("kind", KINDS.index(kind)), ("count", COUNTS.index(count)), ("causal", int(causal)),
            ("kappa", int(kappa)))  # fmt: skip


@operator
def gau_attention(q: Any, k: Any, v: Any, documents: Any = None, bias: Any = None, theta: Any = None, sink: Any = None,
                  *, kind: str = "relu2", count: str = "visible", causal: bool = True, alpha: float = 0.0,
                  bias_scale: float = 0.0, eps: float = 0.0, fixed: float = 0.0, kappa: bool = False) -> Any:  # fmt: skip
    """One head of any weighting f, in tiles: o = A v with A = f(alpha q k^T + bias) / (N exp(theta)) for the sum kinds
    (relu2, laplace, softplus2, smooth2, smooth1, identity), or rows of a fixed norm (softmax, l2, relu2_sum; count
    "none"). q, k (B, T, s), v (B, T, e), documents (B, T) integers, bias (2P-1), theta (1), sink (1) -> (B, T, e).
    count: what N is: "none", "visible" keys, "fixed" number, "length" (not causal). alpha: 0 is 1/sqrt(s).

    >>> import numpy as np, tilia.ops as ops
    >>> x = np.ones((1, 4, 8), "f4")
    >>> ops.gau_attention(x, x, x).shape
    (1, 4, 8)
    """
    if kind in KINDS[6:]:
        count = "none"  # they divide by their own sum
    attr = _gate(kind, count, causal, alpha, bias_scale, eps, fixed, kappa)
    return Row("gau_attention", (q, k, v, documents, bias, theta, sink), attr, (), (3,))


@operator
def mixed_chunk(qq: Any, kq: Any, ql: Any, kl: Any, v: Any, documents: Any = None, bias: Any = None, theta: Any = None,
                *, chunk: int = 256, kind: str = "relu2", count: str = "visible", causal: bool = True,
                alpha: float = 0.0, bias_scale: float = 0.0, eps: float = 0.0, fixed: float = 0.0) -> Any:  # fmt: skip
    """Mixed chunk attention, linear in T: a weighting as gau_attention's inside each chunk, and ql_i (sum of kl_j^T v_j
    over the chunks before) / (tokens in it). qq, kq, ql, kl (B, T, s), v (B, T, e) -> (B, T, e).

    >>> import numpy as np, tilia.ops as ops
    >>> x = np.ones((1, 6, 8), "f4")
    >>> ops.mixed_chunk(x, x, x, x, x, chunk=4).shape
    (1, 6, 8)
    """
    attr = _gate(kind, count, causal, alpha, bias_scale, eps, fixed, False) + (("chunk", int(chunk)), ("norm", 0))
    return Row("mixed_chunk", (qq, kq, ql, kl, v, documents, bias, theta, None, None), attr, (), (5,))


def _layer(b: Any, x: Any, wu: Any, wv: Any, wz: Any, gamma: Any, beta: Any, wo: Any, *, heads: int, chunk: int,
           dtype: int, **gate: Any) -> Any:  # fmt: skip
    del dtype
    silu = 3
    u, v, z = (b.apply("act", b.apply("linear", x, w, None, dtype=0), kind=silu) for w in (wu, wv, wz))
    s = b.shape(z)[-1]
    flat = b.apply("offset_scale", z, b.reshape(gamma, heads * s), b.reshape(beta, heads * s))
    parts = b.apply("split", flat, n=heads, width=[s] * heads + [0] * (6 - heads), outputs=heads)
    if heads == 2:
        o = b.apply("gau_attention", *parts, v, None, None, None, None, **gate)
    else:
        o = b.apply("mixed_chunk", *parts, v, None, None, None, None, None, chunk=chunk, norm=0, **gate)
    return b.apply("linear", b.apply("mul", u, o), wo, None, dtype=0)


class _Gated:
    def __init__(self, name: str, heads: int, doc: str) -> None:
        self.__name__, self._heads, self.__doc__ = name, heads, doc

    def _spec(self, x: Any, *weights: Any, chunk: int = 256, kind: str = "relu2", count: str = "visible",
              causal: bool = True, alpha: float = 0.0, fixed: float = 0.0) -> Any:  # fmt: skip
        a, n = take(x)
        if a.ndim < 2 or len(weights) != 6:
            raise ShapeError(f"{self.__name__}: takes x (..., T, D), wu, wv, wz, gamma, beta, wo", code="SHAPE")
        gate = _gate(kind, count, causal, alpha, 0.0, 0.0, fixed, False)
        attr = gate + (("heads", self._heads), ("chunk", int(chunk)), ("dtype", n))
        return Formula(self.__name__, _layer, (give(a.reshape((-1,) + a.shape[-2:]), n),) + weights, attr, ()), a.shape

    def __call__(self, x: Any, *weights: Any, **options: Any) -> Any:
        spec, shape = self._spec(x, *weights, **options)
        return forward(spec).reshape(shape[:-1] + (-1,))

    def vjp(self, dy: Any, x: Any, *weights: Any, **options: Any) -> tuple:
        """Gradients for x and the weights, in their order."""
        spec, shape = self._spec(x, *weights, **options)
        d, n = take(dy)
        got = gradients(spec, give(d.reshape((-1,) + d.shape[-2:]), n))
        return (got[0].reshape(shape),) + got[1:]


gau = _Gated("gau", 2, """The gated attention unit: (silu(x wu^T) * A silu(x wv^T)) wo^T, where q and k are
    gamma_h silu(x wz^T) + beta_h and A is gau_attention's. x (..., T, D); wu, wv (e, D), wz (s, D), gamma, beta (2, s),
    wo (D, e) -> (..., T, D). kind, count, causal, alpha, fixed as of gau_attention.

    >>> import numpy as np, tilia.ops as ops
    >>> x, w, g = np.ones((1, 4, 8), "f4"), np.eye(8, dtype="f4"), np.ones((2, 8), "f4")
    >>> ops.gau(x, w, w, w, g, g, w).shape
    (1, 4, 8)
    """)  # fmt: skip
flash = _Gated("flash", 4, """FLASH, linear in T: the unit of gau over mixed_chunk. gamma, beta (4, s): of the quadratic
    q and k, the linear q and k. chunk: tokens; else as gau.

    >>> import numpy as np, tilia.ops as ops
    >>> x, w, g = np.ones((1, 9, 8), "f4"), np.eye(8, dtype="f4"), np.ones((4, 8), "f4")
    >>> ops.flash(x, w, w, w, g, g, w, chunk=4).shape
    (1, 9, 8)
    """)  # fmt: skip

__all__ = ["flash", "gau", "gau_attention", "mixed_chunk"]
