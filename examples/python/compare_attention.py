"""Attention written out with NumPy, and the library's: the same numbers, in a fraction of the time and memory.

    python compare_attention.py
"""

import time

import numpy as np

import tilia.ops as ops

# %% The formula, as a lecture has it: T x T numbers exist


def by_formula(q, k, v):
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    s = q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(q.shape[-1]))
    s = np.where(np.tri(q.shape[2], dtype=bool), s, -np.inf)
    p = np.exp(s - s.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return (p @ v).transpose(0, 2, 1, 3)


# %% Both, for growing lengths
random = np.random.default_rng(1)
print("     T   formula    tilia   largest difference   score matrix")
for T in (128, 512, 1024):
    q, k, v = (random.standard_normal((1, T, 4, 64), dtype="f4") for _ in range(3))
    t = time.perf_counter()
    want = by_formula(q, k, v)
    slow = time.perf_counter() - t
    ops.attention(q, k, v, causal=True)
    t = time.perf_counter()
    got = ops.attention(q, k, v, causal=True)
    fast = time.perf_counter() - t
    print(f"{T:6} {slow * 1e3:7.1f}ms {fast * 1e3:7.2f}ms {abs(want - got).max():20.1e} {T * T * 16 / 1e6:11.1f} MB")

# %% The log-sum-exp makes the backward pass exact without those matrices
T = 64
q, k, v, do = (random.standard_normal((1, T, 2, 16), dtype="f4") for _ in range(4))
o, lse = ops.attention(q, k, v, causal=True, return_lse=True)
dq, dk, dv = ops.attention_backward(do, q, k, v, o, lse, causal=True)
d, step = random.standard_normal(q.shape, dtype="f4"), 1e-2
numeric = ((by_formula(q + step * d, k, v) - by_formula(q - step * d, k, v)) * do).sum() / (2 * step)
print(f"dq along a direction: {(dq * d).sum():.4f}, by differences {numeric:.4f}")

# %% Windows, gated units, chunks: the same call
x = random.standard_normal((1, 256, 2, 16), dtype="f4")
print("window 32:", ops.attention(x, x, x, mask="causal+window:32").shape)
z = x.reshape(1, 256, 32)
print("relu^2 gate:", ops.gau_attention(z, z, z).shape, " mixed chunks:", ops.mixed_chunk(z, z, z, z, z, chunk=64).shape)
