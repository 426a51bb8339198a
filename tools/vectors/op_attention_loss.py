"""Writes tests/op/vectors_a.h: what PyTorch computes, in double, for small cases of attention, rope, the loss head and
AdamW. Inputs are a formula that the C tests repeat: fill(seed)[i] = sin(1.3 i + seed) unless said otherwise.

    python tools/vectors/op_attention_loss.py > tests/op/vectors_a.h
"""
import math

import mpmath
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def fill(seed, *shape):
    n = math.prod(shape)
    return torch.tensor([math.sin(1.3 * i + seed) for i in range(n)]).reshape(shape)


def emit(name, t):
    values = [f"{v:.17g}" for v in torch.as_tensor(t).flatten().tolist()]
    print(f"static const double {name}[{len(values)}] = {{")
    line = "   "
    for v in values:
        if len(line) + len(v) + 2 > 118:
            print(line)
            line = "   "
        line += f" {v},"
    print(line + "\n};")


def scores(q, k, scale, cap):
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    t = torch.einsum("bihd,bjhd->bhij", q, k) * scale
    return cap * torch.tanh(t / cap) if cap else t


def case_full():
    """Every option at once: causal window, cap, documents, sinks, slopes, bias, grouped heads, values of another width."""
    B, T, H, Hk, Dh, Dv = 1, 6, 4, 2, 4, 3
    q, k, v = (fill(0.1, B, T, H, Dh) * 2).requires_grad_(), fill(0.2, B, T, Hk, Dh).requires_grad_(), fill(0.3, B, T, Hk, Dv).requires_grad_()
    sinks, slopes, bias = fill(0.4, H).requires_grad_(), fill(0.5, H).abs(), fill(0.6, H, 2 * T - 1).requires_grad_()
    doc = torch.tensor([0, 0, 0, 1, 1, 1])
    i, j = torch.arange(T)[:, None], torch.arange(T)[None, :]
    t = scores(q, k, 0.75, 1.5) - slopes[None, :, None, None] * (i - j).abs() + bias[:, (j - i) + T - 1][None]
    see = (j <= i) & (i - j < 3) & (doc[:, None] == doc[None, :])
    t = t.masked_fill(~see, -math.inf)
    full = torch.cat([t, sinks[None, :, None, None].expand(B, H, T, 1)], dim=-1)
    lse = torch.logsumexp(full, dim=-1)
    p = torch.exp(t - lse[..., None])
    o = torch.einsum("bhij,bjhd->bihd", p, v.repeat_interleave(H // Hk, dim=2))
    o.backward(fill(0.7, *o.shape))
    for name, x in dict(o=o, lse=lse, dq=q.grad, dk=k.grad, dv=v.grad, dsinks=sinks.grad, dbias=bias.grad).items():
        emit("full_" + name, x)


def case_torch(name, T, S, H, Hk, D, offset, causal):
    """scaled_dot_product_attention itself, B = 2."""
    q, k, v = (fill(0.1, 2, T, H, D) * 2).requires_grad_(), fill(0.2, 2, S, Hk, D).requires_grad_(), fill(0.3, 2, S, Hk, D).requires_grad_()
    i, j = torch.arange(T)[:, None], torch.arange(S)[None, :]
    mask = (j <= i + offset) if causal else None
    r = H // Hk
    o = F.scaled_dot_product_attention(q.transpose(1, 2), k.repeat_interleave(r, 2).transpose(1, 2),
                                       v.repeat_interleave(r, 2).transpose(1, 2), attn_mask=mask).transpose(1, 2)
    o.backward(fill(0.7, *o.shape))
    for part, x in dict(o=o, dq=q.grad, dk=k.grad, dv=v.grad).items():
        emit(f"{name}_{part}", x)


def case_rope():
    """pos 0, 3, 1000 over two heads of width 6, of which 4 rotate."""
    pos, freq = torch.tensor([0.0, 3.0, 1000.0]), torch.tensor([1.0, 0.01])
    x = fill(0.1, 3, 2, 6)
    angle = pos[:, None] * freq
    for style in ("half", "pairs"):
        y = x.clone()
        if style == "half":
            z = torch.complex(x[..., 0:2], x[..., 2:4]) * torch.polar(torch.ones_like(angle), angle)[:, None]
            y[..., 0:2], y[..., 2:4] = z.real, z.imag
        else:
            z = torch.view_as_complex(x[..., :4].reshape(3, 2, 2, 2).contiguous()) * torch.polar(torch.ones_like(angle), angle)[:, None]
            y[..., :4] = torch.view_as_real(z).reshape(3, 2, 4)
        emit("rope_" + style, y)
    mpmath.mp.dps = 50
    far = [10000 ** (-2 * k / 64) for k in range(32)]
    emit("rope_far_freq", far)
    emit("rope_far_cos", [float(mpmath.cos(mpmath.mpf(f) * 1000000)) for f in far])
    emit("rope_far_sin", [float(mpmath.sin(mpmath.mpf(f) * 1000000)) for f in far])


def case_loss():
    """N = 5, D = 4, V = 7; row 2 is not counted; denom 4."""
    targets = torch.tensor([3, 0, -1, 6, 3])
    for name, smoothing, zloss, cap in (("plain", 0.0, 0.0, 0.0), ("smooth", 0.125, 0.0, 0.0), ("all", 0.25, 0.0625, 1.5)):
        h, w, b = (fill(0.1, 5, 4) * 2).requires_grad_(), fill(0.2, 7, 4).requires_grad_(), fill(0.3, 7).requires_grad_()
        z = h @ w.T + b
        if cap:
            z = cap * torch.tanh(z / cap)
        losses = F.cross_entropy(z, targets, ignore_index=-1, reduction="none", label_smoothing=smoothing)
        lse = torch.logsumexp(z, -1) * (targets >= 0)
        loss = (losses + zloss * lse**2).sum() / 4
        loss.backward()
        for part, x in dict(loss=loss, losses=losses, lse=lse, dh=h.grad, dw=w.grad, db=b.grad).items():
            emit(f"loss_{name}_{part}", x)


def case_adamw():
    """g_t[i] = sin(0.05 t (i + 1)) + 0.25 cos(i), t from 1; lr 0.01 down to 0, decay 0.1, clipped to length 1 before."""
    n, steps = 6, 1000
    p = torch.nn.Parameter(fill(0.1, n))
    start = p.detach().clone()
    opt = torch.optim.AdamW([p], lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    path = torch.zeros(n)
    for t in range(1, steps + 1):
        p.grad = torch.tensor([math.sin(0.05 * t * (i + 1)) + 0.25 * math.cos(i) for i in range(n)])
        torch.nn.utils.clip_grad_norm_([p], 1.0)
        opt.param_groups[0]["lr"] = 0.01 * (1 - (t - 1) / steps)
        before = p.detach().clone()
        opt.step()
        path += (p.detach() - before).abs()
        if t in (1, 10, 1000):
            emit(f"adamw_p{t}", p.detach())
    emit("adamw_path", path)
    emit("adamw_m", opt.state[p]["exp_avg"])
    emit("adamw_v", opt.state[p]["exp_avg_sq"])


print("/* Written by tools/vectors/op_attention_loss.py with PyTorch in double; do not edit. */")
print("/* clang-format off */")
case_full()
case_torch("offset", 3, 5, 4, 2, 4, 2, True)
case_torch("cross", 3, 5, 2, 2, 4, 0, False)
case_rope()
case_loss()
case_adamw()
