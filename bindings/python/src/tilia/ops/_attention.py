"""Attention: exact, tiled, with its log-sum-exp and backward pass; RoPE; multi-head attention from matrices."""

from __future__ import annotations

import re
from typing import Any, Optional, Tuple, Union

from .._errors import ShapeError
from ._array import give, np, take, take_ids
from ._operator import Formula, Row, forward, gradients, operator
from ._run import OPS, run

# ---- positions ---------------------------------------------------------------------------------------------------


def rope_frequencies(dims: int, theta: float = 10000.0) -> Any:
    """theta^(-2k/dims) for k < dims/2, f64: RoPE's angles per position.

    >>> import tilia.ops as ops
    >>> ops.rope_frequencies(4).tolist()
    [1.0, 0.01]
    """
    return theta ** (-np.arange(0, dims, 2, dtype=np.float64) / dims)


def _rope_formula(b: Any, x: Any, pos: Any, freq: Any, *, interleaved: int, dtype: int) -> Any:
    table = b.apply("rope_table", pos, freq, mscale=1.0, dtype=dtype)
    return b.apply("rope", x, table, style=interleaved, inverse=0)


class _Rope:
    """Rotary positions (Su et al. 2021). x (..., T, H, Dh), positions (T) or (..., T) integers (default 0..T-1) -> as
    x. The first 2 len(frequencies) numbers of a head are rotated: pairs (k, k + half), or (2k, 2k + 1) if interleaved.

    >>> import numpy as np, tilia.ops as ops
    >>> x = np.ones((1, 2, 1, 4), "f4")
    >>> bool((ops.rope(x, positions=[0, 0]) == x).all())
    True
    """

    __name__ = "rope"

    def _spec(self, x: Any, positions: Any = None, *, theta: float = 10000.0, frequencies: Any = None,
              interleaved: bool = False) -> Tuple[Any, Tuple[int, ...]]:  # fmt: skip
        a, n = take(x)
        if a.ndim < 3:
            raise ShapeError(f"rope: x has shape {a.shape}, must be (..., T, heads, width)", code="SHAPE")
        shape = a.shape
        folded = a.reshape((-1,) + shape[-3:])
        pos = np.arange(shape[-3], dtype=np.int32) if positions is None else take_ids(positions)
        pos = np.ascontiguousarray(np.broadcast_to(pos, shape[:-2])).reshape(folded.shape[:2])
        freq = rope_frequencies(shape[-1], theta) if frequencies is None else np.asarray(frequencies, np.float64)
        number = 2 if n == 2 else 1
        ins = (give(folded, n), pos, freq)
        return Formula("rope", _rope_formula, ins, (("interleaved", int(interleaved)), ("dtype", number)), (), (1,)), shape

    def __call__(self, x: Any, positions: Any = None, **options: Any) -> Any:
        spec, shape = self._spec(x, positions, **options)
        return forward(spec).reshape(shape)

    def vjp(self, dy: Any, x: Any, positions: Any = None, **options: Any) -> tuple:
        """(dx, None): the inverse rotation of dy."""
        spec, shape = self._spec(x, positions, **options)
        d, n = take(dy)
        return (gradients(spec, give(d.reshape(spec.ins[0].shape), n), (0,))[0].reshape(shape), None)


rope = _Rope()

# ---- attention ----------------------------------------------------------------------------------------------------

_PREDICATE = re.compile(r"^(full|causal)?(?:[+ ]?window:(\d+))?$")


def _predicate(mask: Any, causal: bool, window: int, T: int, S: int, q_offset: int) -> Tuple[bool, int, Any]:
    """(causal, window, boolean mask or None) of what the caller gave as mask."""
    if mask is None:
        return causal, window, None
    if isinstance(mask, str):
        m = _PREDICATE.match(mask)
        if not m:
            raise ValueError(f'mask is "{mask}"; it can be "full", "causal", "window:N", "causal+window:N", or an array')
        return causal or m.group(1) == "causal", int(m.group(2) or window), None
    a = take(mask)[0]
    if a.dtype != np.bool_:
        raise ShapeError(f"a mask is boolean (True: seen), not {a.dtype}", code="DTYPE")
    if a.all():
        return causal, window, None
    if a.ndim == 2 and a.shape == (T, S) and not window:
        if (a == np.tri(T, S, q_offset, dtype=bool)).all():
            return True, 0, None
    return causal, window, a


class _Call:
    """Arguments of one call in the library's form."""

    def __init__(self, q: Any, k: Any, v: Any, *, causal: bool = False, mask: Any = None, window: int = 0,
                 scale: float = 0.0, softcap: float = 0.0, q_offset: int = 0, documents: Any = None, sinks: Any = None,
                 slopes: Any = None, bias: Any = None, layout: str = "bthd") -> None:  # fmt: skip
        if layout not in ("bthd", "bhtd"):
            raise ValueError(f'layout is "{layout}"; it can be bthd or bhtd')
        self.swap = layout == "bhtd"
        (q, self.n), (k, kn), (v, vn) = take(q), take(k), take(v)
        self.numbers3 = [self.n, kn, vn]
        self.lead = q.shape[:-3]
        for name, a in (("q", q), ("k", k), ("v", v)):
            if a.ndim < 3:
                raise ShapeError(f"attention: {name} has shape {a.shape}, must be (..., tokens, heads, width)",
                                 code="SHAPE", tensor=name)  # fmt: skip
        self.q, self.k, self.v = (self.fold(a) for a in (q, k, v))
        T, S = self.q.shape[1], self.k.shape[1]
        causal, window, self.mask = _predicate(mask, causal, window, T, S, q_offset)
        self.attr = (("scale", float(scale)), ("softcap", float(softcap)), ("causal", int(bool(causal))),
                     ("window", int(window)), ("q_offset", int(q_offset)))  # fmt: skip
        s = np.float64 if self.n == 2 else np.float32
        doc = None
        if documents is not None:
            doc = np.ascontiguousarray(np.broadcast_to(take_ids(documents), self.lead + (S,))).reshape(-1, S)
        self.extra = [doc] + [None if x is None else np.ascontiguousarray(take(x)[0], s) for x in (sinks, slopes, bias)]
        sn = 2 if self.n == 2 else 1
        self.extra_numbers = [0 if x is None else n for x, n in zip(self.extra, (5, sn, sn, sn))]

    def fold(self, a: Any) -> Any:
        """(..., T, H, D), or (..., H, T, D), as (B, T, H, D): a view."""
        a = a.reshape((-1,) + a.shape[-3:])
        return a.transpose(0, 2, 1, 3) if self.swap else a

    def unfold(self, a: Any) -> Any:
        if self.swap:
            a = a.transpose(0, 2, 1, 3)
        return a.reshape(self.lead + a.shape[1:])

    def out_like(self, shape: tuple) -> Any:
        """Memory for (B, T, H, D), laid out as the caller's arrays are."""
        B, T, H, D = shape
        dtype = self.q.dtype
        return np.empty((B, H, T, D), dtype).transpose(0, 2, 1, 3) if self.swap else np.empty(shape, dtype)


_OPTIONS = {"causal", "mask", "window", "scale", "softcap", "q_offset", "documents", "sinks", "slopes", "bias", "layout"}
_PLAIN = {"causal", "window", "scale", "softcap", "q_offset"}


def _call(name: str, q: Any, k: Any, v: Any, options: dict) -> _Call:
    for o in options:
        if o not in _OPTIONS:
            raise TypeError(f"{name}() has no argument '{o}'")
    return _Call(q, k, v, **options)


def _plain(op: str, ins: tuple, want: int, causal: bool = False, window: int = 0, scale: float = 0.0,
           softcap: float = 0.0, q_offset: int = 0) -> Any:  # fmt: skip
    """The common call, with little in its way."""
    attr = (("scale", float(scale)), ("softcap", float(softcap)), ("causal", int(bool(causal))),
            ("window", int(window)), ("q_offset", int(q_offset)))  # fmt: skip
    return forward(Row(op, ins + (None, None, None, None), attr, ()), want)


def attention(q: Any, k: Any, v: Any, *, return_lse: bool = False, out: Any = None, **options: Any) -> Any:
    """softmax(scale q k^T) v, exact and in tiles: no T x S matrix exists. q (..., T, H, Dh), k (..., S, Hk, Dh),
    v (..., S, Hk, Dv) -> (..., T, H, Dv); query head h reads kv head h / (H / Hk). Zero copy, also of views.

    causal: token i sees j <= i + q_offset; window: only i + q_offset - j < window; mask: "full", "causal", "window:N",
    "causal+window:N", or a boolean array (T, S), (B, T, S) or (B, H, T, S), True where seen (arrays that are none of
    the named patterns are computed densely); scale: 0 is 1/sqrt(Dh); softcap: cap tanh(s / cap); documents (..., S)
    integers: tokens see their own document only; sinks (H): a logit in the denominator; slopes (H): ALiBi; bias
    (H, 2P-1): added by distance; layout: "bthd", or "bhtd" for (..., H, T, D) as PyTorch has it.
    return_lse: also the log-sum-exp (..., H, T), which attention_backward reads. A row that sees nothing gives zeros
    and lse +inf. out: memory for the result. Errors: ShapeError, DtypeError naming the argument.

    >>> import numpy as np, tilia.ops as ops
    >>> x = np.ones((1, 5, 2, 8), "f4")
    >>> o, lse = ops.attention(x, x, x, causal=True, return_lse=True)
    >>> o.shape, lse.shape
    ((1, 5, 2, 8), (1, 2, 5))
    """
    if out is None and type(q) is np.ndarray and q.ndim == 4 and options.keys() <= _PLAIN:
        return _plain("attention", (q, k, v), 3 if return_lse else 1, **options)
    c = _call("attention", q, k, v, options)
    if c.mask is not None:
        o, lse = _dense(c)
    else:
        target = None if out is None else c.fold(take(out)[0])
        if target is None and c.swap:
            target = c.out_like(c.q.shape[:3] + (c.v.shape[3],))
        got = run(OPS["attention"], [c.q, c.k, c.v] + c.extra, c.numbers3 + c.extra_numbers, c.attr,
                  3 if return_lse else 1, 0, (target,) if target is not None else (),
                  (c.n,) if target is not None else ())  # fmt: skip
        o, lse = got[0][0], got[1][0] if return_lse else None
    if out is not None:
        if c.mask is not None:
            c.fold(take(out)[0])[...] = o
        result = out
    else:
        result = give(c.unfold(o), c.n)
    return (result, lse.reshape(c.lead + lse.shape[1:])) if return_lse else result


def attention_backward(do: Any, q: Any, k: Any, v: Any, o: Any, lse: Any, *, out: Any = None, **options: Any) -> tuple:
    """(dq, dk, dv) from what attention gave: o and lse. do, o (..., T, H, Dv), lse (..., H, T); options as there (with
    sinks or bias two more: dsinks, dbias). out: memory for (dq, dk, dv).

    >>> import numpy as np, tilia.ops as ops
    >>> x = np.ones((1, 5, 2, 8), "f4")
    >>> o, lse = ops.attention(x, x, x, causal=True, return_lse=True)
    >>> [g.shape for g in ops.attention_backward(o, x, x, x, o, lse, causal=True)]
    [(1, 5, 2, 8), (1, 5, 2, 8), (1, 5, 2, 8)]
    """
    if out is None and type(q) is np.ndarray and q.ndim == 4 and options.keys() <= _PLAIN:
        return _plain("attention_bwd", (do, q, k, v, o, lse), 7, **options)[:3]
    c = _call("attention_backward", q, k, v, options)
    d, oc = c.fold(take(do)[0]), c.fold(take(o)[0])
    if c.mask is not None:
        grads = list(_dense_backward(c, d))
        more: list = []
    else:
        lc = np.ascontiguousarray(take(lse)[0])
        lc = lc.reshape((-1,) + lc.shape[-2:])
        if out is not None:
            targets = tuple(c.fold(take(x)[0]) for x in out)
        elif c.swap:
            targets = tuple(np.empty((a.shape[0], a.shape[2], a.shape[1], a.shape[3]), a.dtype).transpose(0, 2, 1, 3)
                            for a in (c.q, c.k, c.v))  # fmt: skip
        else:
            targets = ()
        extra = [i for i, x in ((3, c.extra[1]), (4, c.extra[3])) if x is not None]
        want = 7 | sum(1 << i for i in extra)
        sn = 2 if c.n == 2 else 1
        got = run(OPS["attention_bwd"], [d, c.q, c.k, c.v, oc, lc] + c.extra,
                  [c.n] + c.numbers3 + [c.n, sn] + c.extra_numbers, c.attr, want, 0, targets,
                  tuple(c.n for _ in targets))  # fmt: skip
        grads = [g[0] for g in got[:3]]
        more = [got[i][0] for i in extra]
    if out is not None:
        if c.mask is not None:
            for t, g in zip(out, grads):
                c.fold(take(t)[0])[...] = g
        return tuple(out) + tuple(more)
    return tuple(give(c.unfold(g), c.n) for g in grads) + tuple(more)


def _attention_vjp(do: Any, q: Any, k: Any, v: Any, **options: Any) -> tuple:
    """Gradients for (q, k, v): attention, then attention_backward."""
    o, lse = attention(q, k, v, return_lse=True, **options)
    return attention_backward(do, q, k, v, o, lse, **options)[:3]


attention.vjp = _attention_vjp  # type: ignore[attr-defined]

# ---- any mask: products and a softmax over what is seen, T x S numbers at a time ---------------------------------------


def _seen(c: _Call, h: int, i: int) -> Any:
    a = c.mask
    if a.ndim == 2:
        return a
    a = a.reshape((-1,) + a.shape[-3:]) if a.ndim >= 4 else a
    if a.ndim == 3:
        return a[i % a.shape[0]]
    return a[i % a.shape[0], h % a.shape[1]]


def _check_dense(c: _Call) -> dict:
    at = dict(c.attr)
    if at["softcap"] or any(x is not None for x in c.extra):
        raise ValueError("a mask that is no named pattern goes with none of softcap, documents, sinks, slopes, bias")
    if c.n not in (1, 2):
        raise ValueError("a mask that is no named pattern is computed in f32 or f64 only")
    return at


def _probabilities(c: _Call, at: dict, i: int, h: int) -> Tuple[Any, Any, Any]:
    """(p, lse, rows that see something) of head h of sequence i."""
    q, k = c.q[i, :, h], c.k[i, :, h // (c.q.shape[2] // c.k.shape[2])]
    T, S = q.shape[0], k.shape[0]
    s = _linear(q, k) * q.dtype.type(at["scale"] or 1 / np.sqrt(q.shape[1]))
    seen = np.broadcast_to(_seen(c, h, i), (T, S))
    rows = np.arange(T)[:, None] + at["q_offset"] - np.arange(S)
    if at["causal"]:
        seen = seen & (rows >= 0)
    if at["window"]:
        seen = seen & (np.abs(rows) < at["window"] if not at["causal"] else rows < at["window"])
    some = seen.any(-1, keepdims=True)
    s = np.where(seen | ~some, s, -np.inf).astype(q.dtype)
    p = np.where(some, forward(Row("softmax", (s,), ())), 0).astype(q.dtype)
    top = s.max(-1, keepdims=True)
    best = p.max(-1, keepdims=True)
    lse = np.where(some, top - np.log(np.where(some, best, 1)), np.inf)[:, 0]
    return p, lse, some


def _linear(x: Any, w: Any) -> Any:
    return forward(Row("linear", (np.ascontiguousarray(x), np.ascontiguousarray(w), None), (("dtype", 0),)))


def _dense(c: _Call) -> Tuple[Any, Any]:
    at = _check_dense(c)
    B, T, H, _ = c.q.shape
    o = c.out_like((B, T, H, c.v.shape[3]))
    lse = np.empty((B, H, T), c.q.dtype)
    group = H // c.k.shape[2]
    for i in range(B):
        for h in range(H):
            p, lse[i, h], _ = _probabilities(c, at, i, h)
            o[i, :, h] = _linear(p, c.v[i, :, h // group].T)
    return o, lse


def _dense_backward(c: _Call, do: Any) -> Tuple[Any, Any, Any]:
    at = _check_dense(c)
    B, T, H, Dh = c.q.shape
    dq, dk, dv = (np.zeros(a.shape, a.dtype) for a in (c.q, c.k, c.v))
    group = H // c.k.shape[2]
    by = c.q.dtype.type(at["scale"] or 1 / np.sqrt(Dh))
    for i in range(B):
        for h in range(H):
            g = h // group
            p, _, some = _probabilities(c, at, i, h)
            dp = _linear(do[i, :, h], c.v[i, :, g])
            ds = forward(Row("softmax_bwd", (dp, p), (), (0, 1))) * by
            dq[i, :, h] = _linear(ds, c.k[i, :, g].T)
            dk[i, :, g] += _linear(ds.T, c.q[i, :, h].T)
            dv[i, :, g] += _linear(p.T, do[i, :, h].T)
    return dq, dk, dv


# ---- multi-head attention ------------------------------------------------------------------------------------------


def _mha_formula(b: Any, x: Any, wq: Any, wk: Any, wv: Any, wo: Any, bq: Any, bk: Any, bv: Any, bo: Any, pos: Any,
                 freq: Any, *, heads: int, kv_heads: int, causal: int, window: int, scale: float, dtype: int) -> Any:  # fmt: skip
    B, T, _ = b.shape(x)

    def project(w: Any, bias: Any, n: int) -> Any:
        y = b.apply("linear", x, w, bias, dtype=0)
        return b.reshape(y, B, T, n, b.shape(y)[-1] // n)

    q, k, v = project(wq, bq, heads), project(wk, bk, kv_heads), project(wv, bv, kv_heads)
    if freq:
        table = b.apply("rope_table", pos, freq, mscale=1.0, dtype=dtype)
        q, k = (b.apply("rope", y, table, style=0, inverse=0) for y in (q, k))
    o = b.apply("attention", q, k, v, None, None, None, None, scale=scale, causal=causal, window=window)
    return b.apply("linear", b.reshape(o, B, T, heads * b.shape(v)[-1]), wo, bo, dtype=0)


@operator
def _mha(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, bq: Any = None, bk: Any = None, bv: Any = None, bo: Any = None,
         *, heads: int, kv_heads: Optional[int] = None, causal: bool = False, window: int = 0, scale: float = 0.0,
         rope_theta: Optional[float] = None, positions: Any = None) -> Any:  # fmt: skip
    a, n = take(x)
    T = a.shape[-2]
    kv = kv_heads or heads
    pos = freq = None
    if rope_theta is not None:
        p = np.arange(T, dtype=np.int32) if positions is None else take_ids(positions)
        pos = np.ascontiguousarray(np.broadcast_to(p, a.shape[:-1])).reshape(-1, T)
        freq = rope_frequencies(take(wq)[0].shape[0] // heads, rope_theta)
    folded = give(a.reshape((-1,) + a.shape[-2:]), n)
    ins = (folded, wq, wk, wv, wo, bq, bk, bv, bo, pos, freq)
    attr = (("heads", heads), ("kv_heads", kv), ("causal", int(causal)), ("window", int(window)),
            ("scale", float(scale)), ("dtype", 2 if n == 2 else 1))  # fmt: skip
    return Formula("multi_head_attention", _mha_formula, ins, attr, (), (9,) if pos is not None else ())


class _MultiHead:
    """Multi-head attention with given projections: softmax(q k^T) v per head, then the output projection.
    x (..., T, D); wq (H Dh, D), wk, wv (Hk Dh, D), wo (D, H Dv); biases bq, bk, bv, bo or None -> (..., T, D).
    heads, kv_heads (heads); causal, window, scale as of attention; rope_theta: rotary positions (0..T-1 or positions).

    >>> import numpy as np, tilia.ops as ops
    >>> w = np.eye(8, dtype="f4")
    >>> ops.multi_head_attention(np.ones((2, 3, 8), "f4"), w, w, w, w, heads=2).shape
    (2, 3, 8)
    """

    __name__ = "multi_head_attention"

    def __call__(self, x: Any, *args: Any, **options: Any) -> Any:
        a = take(x)[0]
        if a.ndim < 2:
            raise ShapeError(f"multi_head_attention: x has shape {a.shape}, must be (..., T, D)", code="SHAPE")
        return _mha(x, *args, **options).reshape(a.shape[:-1] + (-1,))

    def vjp(self, dy: Any, x: Any, *args: Any, **options: Any) -> tuple:
        """Gradients for x and the matrices and biases given, in their order."""
        a, d = take(x)[0], take(dy)
        dyf = give(d[0].reshape((-1,) + d[0].shape[-2:]), d[1])
        spec = _mha._spec(x, *args, **options)
        wrt = [i for i in range(9) if spec.ins[i] is not None]
        got = gradients(spec, dyf, wrt)[: 1 + len(args)]
        return (got[0].reshape(a.shape),) + got[1:]


multi_head_attention = _MultiHead()

Mask = Union[str, Any]
__all__ = ["attention", "attention_backward", "multi_head_attention", "rope", "rope_frequencies"]
