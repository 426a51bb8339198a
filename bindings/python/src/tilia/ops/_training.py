"""What a training loop needs beside layers: losses, clipping, optimizers, schedules, dropout."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from .._errors import DtypeError, ShapeError
from .._lib import lib, tl_run_info
from .._train import schedule_number
from ._array import give, np, take
from ._operator import Formula, Row, forward, operator
from ._rows import _check_targets
from ._run import OPS, run

# ---- loss -----------------------------------------------------------------------------------------------------


def _cross(logits: Any, targets: Any) -> Tuple[Any, Any, Any, Any]:
    z, n = take(logits)
    if n not in (1, 2):
        z = forward(Row("cast", (give(z, n),), (("dtype", 1),)))
    z = np.ascontiguousarray(z).reshape(-1, z.shape[-1])
    t = np.asarray(take(targets)[0] if hasattr(targets, "__dlpack__") else targets).reshape(-1)
    if t.shape[0] != z.shape[0]:
        raise ShapeError(f"cross_entropy: {t.shape[0]} targets for {z.shape[0]} rows", code="SHAPE")
    _check_targets(t, z.shape[1])
    counted = t >= 0
    return z, np.where(counted, t, 0), counted, forward(Row("softmax", (z,), ()))


def _mean(losses: Any, counted: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    total = losses.sum(dtype=np.float64)
    return float(total) if reduction == "sum" else float(total / max(1, np.count_nonzero(counted)))


def cross_entropy(logits: Any, targets: Any, *, smoothing: float = 0.0, reduction: str = "mean") -> Any:
    """-log softmax(logits)[target], nats. logits (..., V), targets (...) integers (negative: not counted) -> a float,
    or (...) with reduction "none". Stable for logits of any size, -inf included. For logits that come from a
    projection linear_cross_entropy needs no memory for them.

    >>> import numpy as np, tilia.ops as ops
    >>> ops.cross_entropy(np.array([[1000.0, 0.0]], "f4"), [1])
    1000.0
    """
    z, t, counted, p = _cross(logits, targets)
    rows = np.arange(len(t))
    top = p.argmax(-1)  # its probability is at least 1/V: log(sum) without a small number
    zt = z[rows, t]
    losses = -np.log(p[rows, top])
    if smoothing:
        losses = losses + z[rows, top] - (1 - smoothing) * zt - smoothing * z.mean(-1)
    else:
        losses = losses + (z[rows, top] - zt)
    losses = np.where(counted, losses, 0).astype(z.dtype)
    return _mean(losses, counted, reduction) if reduction != "none" else losses.reshape(take(logits)[0].shape[:-1])


def _cross_vjp(dy: Any, logits: Any, targets: Any, *, smoothing: float = 0.0, reduction: str = "mean") -> Any:
    """The gradient for logits: dy (softmax - target), divided by the labels counted for "mean"."""
    z, t, counted, p = _cross(logits, targets)
    g = p.copy()
    g[np.arange(len(t)), t] -= 1 - smoothing
    if smoothing:
        g -= g.dtype.type(smoothing / z.shape[1])
    weight = np.asarray(dy, np.float64).reshape(-1) * counted
    if reduction == "mean":
        weight = weight / max(1, np.count_nonzero(counted))
    return (g * weight[:, None]).astype(z.dtype).reshape(take(logits)[0].shape)


cross_entropy.vjp = _cross_vjp  # type: ignore[attr-defined]

# ---- dropout ----------------------------------------------------------------------------------------------------


def _dropout_formula(b: Any, x: Any, *, p: float, op: int) -> Any:
    return b.apply("dropout", x, p=p, op=op)


@operator
def dropout(x: Any, p: float, *, seed: int = 0, step: int = 0, op: int = 0) -> Any:
    """x / (1 - p) where kept, else 0. The same (seed, step, op) drops the same elements, in vjp too. x (...) -> (...).

    >>> import numpy as np, tilia.ops as ops
    >>> float(ops.dropout(np.ones(1000, "f4"), 0.5, seed=1).max())
    2.0
    """
    return Formula("dropout", _dropout_formula, (x,), (("p", float(p)), ("op", int(op))), (0,), (),
                   tl_run_info(seed, step, 0))  # fmt: skip


# ---- gradients ----------------------------------------------------------------------------------------------------


def _own(x: Any, name: str) -> Any:
    """Memory that is worked on in place, flat."""
    a, n = take(x)
    if n not in (1, 2):
        raise DtypeError(f"{name}: must be f32 or f64 to be worked on in place", code="DTYPE", tensor=name)
    flat = a.reshape(-1)
    if a.size and not np.shares_memory(flat, a):
        raise ShapeError(f"{name}: must be contiguous to be worked on in place", code="SHAPE", tensor=name)
    if not flat.flags.writeable:
        raise ShapeError(f"{name}: is read-only", code="ARG", tensor=name)
    return flat, n


def global_norm(arrays: Iterable[Any]) -> float:
    """sqrt of the sum of squares over all arrays (f32 or f64), in fixed blocks.

    >>> import numpy as np, tilia.ops as ops
    >>> round(ops.global_norm([np.full(4, 1, "f4"), np.full(12, 1, "f4")]), 6)
    4.0
    """
    total = 0.0
    for x in arrays:
        a, n = take(x)
        total += float(run(OPS["global_norm"], [np.ascontiguousarray(a).reshape(-1)], [n])[0][0][0]) ** 2
    return float(np.sqrt(total))


def clip_grad_norm(grads: Sequence[Any], max_norm: float, *, eps: float = 1e-6) -> float:
    """Scales grads in place by min(1, max_norm / (norm + eps)), as torch's clip_grad_norm_ does; returns the norm
    before.

    >>> import numpy as np, tilia.ops as ops
    >>> g = [np.full(4, 3, "f4")]
    >>> ops.clip_grad_norm(g, 1.0), round(ops.global_norm(g), 4)
    (6.0, 1.0)
    """
    norm = global_norm(grads)
    by = max_norm / (norm + eps)
    if by < 1:
        for g in grads:
            flat, n = _own(g, "grads")
            run(OPS["scale"], [flat], [n], (("by", by),), 1, 0, (flat,), (n,))
    return norm


# ---- optimizers ----------------------------------------------------------------------------------------------------


def adamw_step(
    p: Any,
    m: Any,
    v: Any,
    g: Any,
    *,
    step: int,
    lr: float = 1e-3,
    betas: Tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    clip: float = 0.0,
    norm: Optional[float] = None,
    p16: Any = None,
) -> None:
    """AdamW (Loshchilov and Hutter 2019) in one pass, in place: p, m, v, g of one shape, f32; g is used up and zero
    afterwards. step: from 1, for the corrections of bias. clip with norm (the global norm): g is scaled by
    min(1, clip / norm) on the way. p16: bf16 copy of p to be refreshed.

    >>> import numpy as np, tilia.ops as ops
    >>> p, m, v, g = (np.full(3, x, "f4") for x in (1, 0, 0, 1))
    >>> ops.adamw_step(p, m, v, g, step=1, lr=0.1, weight_decay=0)
    >>> [round(float(x), 4) for x in p]
    [0.9, 0.9, 0.9]
    """
    flats = [_own(x, name) for x, name in ((p, "p"), (m, "m"), (v, "v"), (g, "g"))]
    number = flats[0][1]
    dtype = np.float64 if number == 2 else np.float32
    hyper = np.zeros(16, dtype)
    hyper[:9] = (lr, betas[0], betas[1], eps, weight_decay, clip, 1 - betas[0] ** step, 1 - betas[1] ** step, 1.0)
    n = None if norm is None else np.array([norm], dtype)
    outs = [a for a, _ in flats]
    numbers = [k for _, k in flats]
    if p16 is not None:
        raw, k = take(p16)
        outs.append(raw.reshape(-1))
        numbers.append(k)
    want = (1 << len(outs)) - 1
    run(OPS["adamw"], [hyper, n], [number, 0 if n is None else number], (("decay", 1),), want, want, outs, numbers)


def muon_step(
    p: Any,
    momentum: Any,
    g: Any,
    *,
    lr: float = 0.02,
    beta: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    iterations: int = 5,
) -> None:
    """Muon (Jordan 2024) in place on a matrix p (R, C) with its momentum, f32: the momentum's singular values are
    brought near one by Newton-Schulz iterations with (3.4445, -4.7750, 2.0315), then p -= lr sqrt(max(1, R/C)) o.

    >>> import numpy as np, tilia.ops as ops
    >>> p, b, g = np.zeros((4, 4), "f4"), np.zeros((4, 4), "f4"), np.eye(4, dtype="f4")
    >>> ops.muon_step(p, b, g, lr=0.1)
    >>> bool(-0.13 < p[0, 0] < -0.06)
    True
    """
    pa, pn = take(p)
    ba, ga = take(momentum)[0], take(g)[0]
    if pa.ndim != 2 or pn != 1:
        raise ShapeError(f"muon_step: p has shape {pa.shape}, must be a matrix of f32", code="SHAPE")
    ba *= np.float32(beta)
    ba += np.float32(1 - beta) * ga
    u = (1 - beta) * ga + beta * ba if nesterov else ba
    o = newton_schulz(u.astype(np.float32), iterations)
    if weight_decay:
        pa *= np.float32(1 - lr * weight_decay)
    pa -= np.float32(lr * max(1.0, pa.shape[0] / pa.shape[1]) ** 0.5) * o


def _schulz_formula(b: Any, x: Any, xt: Any, *, steps: int) -> Any:
    # x (R, C) with R <= C and its transpose; X' = a X + (b A + c A A) X with A = X X^T, A symmetric
    for _ in range(steps):
        a = b.apply("linear", x, x, None, dtype=0)
        poly = b.apply("add", b.apply("scale", a, by=-4.7750), b.apply("scale", b.apply("linear", a, a, None, dtype=0), by=2.0315))
        new = b.apply("add", b.apply("scale", x, by=3.4445), b.apply("linear", poly, xt, None, dtype=0))
        xt = b.apply("add", b.apply("scale", xt, by=3.4445), b.apply("linear", xt, poly, None, dtype=0))
        x = new
    return x


def newton_schulz(g: Any, iterations: int = 5) -> Any:
    """g (R, C) f32 with its singular values brought near one.

    >>> import numpy as np, tilia.ops as ops
    >>> s = np.linalg.svd(ops.newton_schulz(np.diag([1, 0.5, 0.3]).astype("f4")), compute_uv=False)
    >>> bool((0.6 < s).all() and (s < 1.3).all())
    True
    """
    a = np.ascontiguousarray(take(g)[0], np.float32)
    tall = a.shape[0] > a.shape[1]
    x = np.ascontiguousarray(a.T) if tall else a
    x = x / np.float32(global_norm([x]) + 1e-7)
    spec = Formula("newton_schulz", _schulz_formula, (x, np.ascontiguousarray(x.T)), (("steps", int(iterations)),), ())
    y = forward(spec)
    return np.ascontiguousarray(y.T) if tall else y


class AdamW:
    """AdamW over a dict of f32 arrays, in place; moments inside. Matrices decay, vectors do not (decay: "all" for
    PyTorch's way).

    >>> import numpy as np, tilia.ops as ops
    >>> w = {"w": np.ones((2, 2), "f4")}
    >>> o = ops.AdamW(w, lr=0.1)
    >>> o.step({"w": np.ones((2, 2), "f4")})
    1
    """

    def __init__(self, params: Dict[str, Any], *, lr: float = 1e-3, betas: Tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0.01, decay: str = "matrices") -> None:  # fmt: skip
        self.params, self.lr, self.betas, self.eps = params, lr, betas, eps
        self.weight_decay, self.all = weight_decay, decay == "all"
        self.m = {k: np.zeros_like(x) for k, x in params.items()}
        self.v = {k: np.zeros_like(x) for k, x in params.items()}
        self.steps = 0

    def step(self, grads: Dict[str, Any], *, lr: Optional[float] = None, clip: float = 0.0) -> int:
        """One update; grads are not changed. Returns the number of updates."""
        self.steps += 1
        norm = global_norm(grads.values()) if clip else None
        for k, p in self.params.items():
            decay = self.weight_decay if self.all or p.ndim > 1 else 0.0
            adamw_step(p, self.m[k], self.v[k], np.array(grads[k], p.dtype), step=self.steps,
                       lr=self.lr if lr is None else lr, betas=self.betas, eps=self.eps, weight_decay=decay, clip=clip,
                       norm=norm)  # fmt: skip
        return self.steps


# ---- schedules ----------------------------------------------------------------------------------------------------


def schedule(step: int, *, lr: float, steps: int, warmup: int = 0, min_lr: float = 0.0, kind: str = "cosine") -> float:
    """The learning rate of the update after ``step`` updates: lr (step+1)/(warmup+1) while step < warmup, then by kind:
    "cosine", "linear", "constant", "wsd" down to min_lr at ``steps``.

    >>> import tilia.ops as ops
    >>> [ops.schedule(s, lr=1.0, steps=4, kind="linear") for s in (0, 2, 4)]
    [1.0, 0.5, 0.0]
    """
    return lib.tl_schedule_lr(schedule_number(kind), lr, min_lr, warmup, steps, step)


_all: List[str] = [
    "AdamW", "adamw_step", "clip_grad_norm", "cross_entropy", "dropout", "global_norm", "muon_step", "newton_schulz",
    "schedule",
]  # fmt: skip
__all__ = _all
