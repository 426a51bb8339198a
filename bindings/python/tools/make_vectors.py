"""Writes tests/vectors.npz: what PyTorch gives (computed in float64 on float32 inputs, rounded to float32), for the tests.

    python make_vectors.py          # needs torch
"""

import os

import numpy as np
import torch
import torch.nn.functional as F

torch.manual_seed(1)
out = {}


def r(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).float().double().requires_grad_(True)


def keep(case, ins, y, wrt=None, extra=()):
    """ins: name -> tensor; stores inputs, y, dy and the gradients of wrt."""
    for k, x in ins.items():
        x = x.detach()
        out[f"{case}/{k}"] = x.numpy().astype(np.float32) if x.is_floating_point() else x.numpy().astype(np.int32)
    out[f"{case}/y"] = y.detach().numpy().astype(np.float32)
    dy = torch.randn(y.shape).float()
    out[f"{case}/dy"] = dy.numpy()
    names = [k for k, x in ins.items() if x.is_floating_point()] if wrt is None else wrt
    for k, g in zip(names, torch.autograd.grad(y, [ins[k] for k in names], dy.double())):
        out[f"{case}/d{k}"] = g.numpy().astype(np.float32)
    for k, x in extra:
        out[f"{case}/{k}"] = x.detach().numpy().astype(np.float32)


x, w, b = r(2, 3, 24), r(16, 24, scale=0.3), r(16)
keep("linear", {"x": x, "w": w, "b": b}, F.linear(x, w, b))
ids, t = torch.randint(0, 11, (2, 5)), r(11, 8)
keep("embedding", {"ids": ids, "t": t}, F.embedding(ids, t))
x, w, b = r(2, 3, 32), r(32), r(32)
keep("rmsnorm", {"x": x, "w": w}, F.rms_norm(x, (32,), w, 1e-6))
keep("layernorm", {"x": x, "w": w, "b": b}, F.layer_norm(x, (32,), w, b, 1e-5))
x = r(4, 33, scale=2)
for name, f in {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
                "relu2": lambda x: F.relu(x) ** 2, "relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
                "softmax": lambda x: F.softmax(x, -1)}.items():  # fmt: skip
    keep(name, {"x": x}, f(x))
g, u = r(4, 20), r(4, 20)
keep("swiglu", {"g": g, "u": u}, F.silu(g) * u)
big = torch.tensor([[1e4, 1e4 - 1, -1e4], [88.0, 89.0, 90.0], [3e38, -3e38, 0]], dtype=torch.float64, requires_grad=True)
keep("softmax_huge", {"x": big}, F.softmax(big, -1))

# rope as Hugging Face's Llama has it: (x cos + rotate_half(x) sin)
x, pos = r(2, 6, 3, 16), torch.tensor([[0, 1, 2, 3, 4, 5], [7, 8, 9, 0, 1, 2]])
freq = 10000.0 ** (-torch.arange(0, 16, 2).double() / 16)
a = pos[..., None].double() * freq
cos, sin = torch.cat([a.cos(), a.cos()], -1)[:, :, None], torch.cat([a.sin(), a.sin()], -1)[:, :, None]
keep("rope", {"x": x, "pos": pos}, x * cos + torch.cat([-x[..., 8:], x[..., :8]], -1) * sin)


def attend(q, k, v, seen):
    """(B,T,H,D) with grouped heads; also the log-sum-exp (B,H,T)."""
    n = q.shape[2] // k.shape[2]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2).repeat_interleave(n, 1), v.transpose(1, 2).repeat_interleave(n, 1)
    s = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return y.transpose(1, 2), torch.logsumexp(s, -1)


T, S = 9, 9
q, k, v = r(2, T, 4, 16), r(2, S, 2, 16), r(2, S, 2, 16)
i, j = torch.arange(T)[:, None], torch.arange(S)
masks = {"full": i == i, "causal": j <= i, "window": (j <= i) & (i - j < 3), "any": (torch.rand(T, S) < 0.6) | (i == j)}
for name, m in masks.items():
    seen = m.expand(T, S)
    y, lse = attend(q, k, v, seen)
    keep("attention_" + name, {"q": q, "k": k, "v": v}, y, None, [("lse", lse)])
out["attention_any/mask"] = masks["any"].numpy()

D, H = 24, 3
m = torch.nn.MultiheadAttention(D, H, batch_first=True).double()
with torch.no_grad():
    for p in m.parameters():
        p.copy_((torch.randn(p.shape) * 0.3).float().double())
x = r(2, 5, D)
y, _ = m(x, x, x, attn_mask=torch.triu(torch.ones(5, 5, dtype=torch.bool), 1), need_weights=False)
wq, wk, wv = m.in_proj_weight.chunk(3)
bq, bk, bv = m.in_proj_bias.chunk(3)
dy = torch.randn(y.shape).float()
gx, gw, gb, go, gbo = torch.autograd.grad(y, [x, m.in_proj_weight, m.in_proj_bias, m.out_proj.weight, m.out_proj.bias],
                                          dy.double())  # fmt: skip
for n, a in dict(x=x, wq=wq, wk=wk, wv=wv, wo=m.out_proj.weight, bq=bq, bk=bk, bv=bv, bo=m.out_proj.bias, y=y, dy=dy,
                 dx=gx, dwq=gw[:D], dwk=gw[D : 2 * D], dwv=gw[2 * D :], dwo=go, dbq=gb[:D], dbk=gb[D : 2 * D],
                 dbv=gb[2 * D :], dbo=gbo).items():  # fmt: skip
    out["mha/" + n] = a.detach().numpy().astype(np.float32)

# GAU (Hua et al. 2022): relu^2 of scores over the number of keys seen, causal
x, wu, wv_, wz = r(2, 7, 16, scale=0.5), r(24, 16, scale=0.4), r(24, 16, scale=0.4), r(8, 16, scale=0.4)
gamma, beta, wo = r(2, 8), r(2, 8, scale=0.2), r(16, 24, scale=0.3)
uu, vv, zz = F.silu(x @ wu.T), F.silu(x @ wv_.T), F.silu(x @ wz.T)
qq, kk = zz * gamma[0] + beta[0], zz * gamma[1] + beta[1]
A = F.relu(qq @ kk.transpose(-1, -2) / 8**0.5) ** 2 * torch.tril(torch.ones(7, 7)).double()
A = A / torch.arange(1, 8).double()[:, None]
keep("gau", dict(x=x, wu=wu, wv=wv_, wz=wz, gamma=gamma, beta=beta, wo=wo), (uu * (A @ vv)) @ wo.T)

# FLASH: the same inside chunks of 4, and a linear part over the chunks before
x, wz = r(2, 12, 16, scale=0.5), r(8, 16, scale=0.3)
gamma, beta = r(4, 8), r(4, 8, scale=0.2)
uu, vv, zz = F.silu(x @ wu.T), F.silu(x @ wv_.T), F.silu(x @ wz.T)
qq, kq, ql, kl = (zz * gamma[n] + beta[n] for n in range(4))
i, j = torch.arange(12)[:, None], torch.arange(12)
inside = ((j <= i) & (i // 4 == j // 4)).double()
before = (j // 4 < i // 4).double()
quad = F.relu(qq @ kq.transpose(-1, -2) / 8**0.5) ** 2 * inside
quad = quad / inside.sum(-1, keepdim=True)
lin = (ql @ kl.transpose(-1, -2)) * before / before.sum(-1, keepdim=True).clamp(min=1)
keep("flash", dict(x=x, wu=wu, wv=wv_, wz=wz, gamma=gamma, beta=beta, wo=wo), (uu * ((quad + lin) @ vv)) @ wo.T)

z, t = r(6, 1000, scale=8), torch.tensor([1, 999, -100, 500, 0, 3])
keep("cross_entropy", {"z": z, "t": t}, F.cross_entropy(z, t, ignore_index=-100, reduction="none"))
keep("cross_entropy_mean", {"z": z, "t": t}, F.cross_entropy(z, t, ignore_index=-100))
keep("cross_entropy_smooth", {"z": z, "t": t}, F.cross_entropy(z, t, ignore_index=-100, label_smoothing=0.1))
for case in ("mean", "smooth"):
    del out[f"cross_entropy_{case}/z"], out[f"cross_entropy_{case}/t"]
h, w = r(6, 16), r(50, 16)
t = torch.tensor([1, 49, -100, 30, 0, 3])
keep("head", {"h": h, "w": w, "t": t}, F.cross_entropy(h @ w.T, t, ignore_index=-100))

gs = [torch.randn(5, 7) * 3, torch.randn(11)]
out["clip/a"], out["clip/b"] = (g.numpy().copy() for g in gs)
ps = [torch.nn.Parameter(torch.zeros_like(g)) for g in gs]
for p, g in zip(ps, gs):
    p.grad = g.clone()
out["clip/norm"] = torch.nn.utils.clip_grad_norm_(ps, 1.0).numpy()
out["clip/ca"], out["clip/cb"] = (p.grad.numpy() for p in ps)

# 1000 AdamW steps, lr by cosine with warm-up, on a quadratic whose gradient both sides compute alike
p = torch.nn.Parameter(torch.randn(6, 5))
target, curve = torch.randn(6, 5), torch.rand(6, 5) + 0.1
out["adamw/p"], out["adamw/target"], out["adamw/curve"] = (a.detach().numpy().copy() for a in (p, target, curve))
o = torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
s = torch.optim.lr_scheduler.SequentialLR(o, [
    torch.optim.lr_scheduler.LinearLR(o, 1 / 101, 1.0, 100),
    torch.optim.lr_scheduler.CosineAnnealingLR(o, 900, 1e-3)], [100])  # fmt: skip
lrs, trace = [], []
for n in range(1000):
    lrs.append(o.param_groups[0]["lr"])
    p.grad = (curve * (p.detach() - target)) + 0.1 * torch.sin(torch.tensor(float(n))) * target
    o.step()
    s.step()
    if n % 100 == 99:
        trace.append(p.detach().numpy().copy())
out["adamw/lrs"], out["adamw/trace"] = np.array(lrs), np.array(trace)

# Muon's orthogonalisation
a, b, c = 3.4445, -4.7750, 2.0315
g = torch.randn(12, 7).double()
x = g.T / (g.norm() + 1e-7)
for _ in range(5):
    m = x @ x.T
    x = a * x + (b * m + c * m @ m) @ x
out["muon/g"], out["muon/o"] = g.numpy().astype(np.float32), x.T.numpy().astype(np.float32)

# a Llama block and model of transformers, if it is there
try:
    from transformers import LlamaConfig, LlamaForCausalLM

    cfg = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                      num_key_value_heads=2, max_position_embeddings=32, tie_word_embeddings=False,
                      attn_implementation="eager")  # fmt: skip
    net = LlamaForCausalLM(cfg).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_((torch.randn(p.shape) * 0.3 + (1.0 if p.ndim == 1 else 0)).float().double())
    ids = torch.randint(0, 32, (2, 9))
    hidden = net(ids, output_hidden_states=True)
    y = hidden.logits
    dy = torch.randn(y.shape).float()
    names, params = zip(*net.named_parameters())
    grads = torch.autograd.grad(y, params, dy.double())
    out["llama/ids"], out["llama/y"], out["llama/dy"] = ids.numpy(), y.detach().numpy().astype("f4"), dy.numpy()
    for n, p, g in zip(names, params, grads):
        out["llama/p/" + n], out["llama/g/" + n] = p.detach().numpy().astype("f4"), g.numpy().astype("f4")
    out["llama/h0"], out["llama/h1"] = (hidden.hidden_states[k].detach().numpy().astype("f4") for k in (0, 1))
except ImportError:
    pass

here = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests")
np.savez_compressed(os.path.join(here, "vectors.npz"), **out)
print(len(out), "arrays,", os.path.getsize(os.path.join(here, "vectors.npz")), "bytes")
