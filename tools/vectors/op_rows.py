#!/usr/bin/env python3
"""Writes tests/op/vectors_b.h: what PyTorch computes in double for inputs that C rebuilds, and gguf-py for quantized blocks.
Run by hand where torch and gguf are installed: tools/vectors/op_rows.py > tests/op/vectors_b.h"""
import sys
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
EPS5, EPS6 = (float(torch.tensor(e, dtype=torch.float32)) for e in (1e-5, 1e-6))  # attributes are f32


def data(seed, *shape):
    """The same numbers as vector_data() of t_ref_rows.c: multiples of 1/512 in (-2, 2)."""
    n = 1
    for d in shape:
        n *= d
    v = [((i * 7919 + seed * 104729) % 2039 - 1019) / 512 for i in range(n)]
    return torch.tensor(v).reshape(shape).requires_grad_()


def emit(name, t):
    v = t.detach().reshape(-1).tolist()
    rows = [", ".join(repr(x) for x in v[i:i + 5]) for i in range(0, len(v), 5)]
    print(f"static const double {name}[{len(v)}] = {{\n    " + ",\n    ".join(rows) + "};")


def case(name, fn, *args):
    """y, and the gradients of sum(y * dy) for every argument."""
    y = fn(*args)
    emit(name + "_y", y)
    if not y.requires_grad:
        return
    dy = data(99, *y.shape).detach()
    for k, g in enumerate(torch.autograd.grad(y, args, dy)):
        emit(f"{name}_d{k}", g)


print("/* Made by tools/vectors/op_rows.py (PyTorch " + torch.__version__.split("+")[0] + ", double; gguf). Do not edit. */\n/* clang-format off */")
print("#ifndef TESTS_OP_VECTORS_B_H\n#define TESTS_OP_VECTORS_B_H\n")
case("linear", lambda x, w, b: F.linear(x, w, b), data(1, 3, 5), data(2, 4, 5), data(3, 4))
case("layernorm", lambda x, w, b: F.layer_norm(x, (6,), w, b, EPS5), data(1, 3, 6), data(2, 6), data(3, 6))
case("rmsnorm", lambda x, w: F.rms_norm(x, (6,), w, EPS6), data(1, 3, 6), data(2, 6))
case("rmsnorm1", lambda x, w: F.rms_norm(x, (6,), 1 + w, EPS6), data(1, 3, 6), data(2, 6))
case("scalenorm", lambda x, g: g * F.normalize(x, dim=-1) * 6 ** 0.5, data(1, 3, 6), data(2, 1))
for name, fn in [("relu", F.relu), ("gelu", F.gelu), ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh")),
                 ("silu", F.silu), ("relu2", lambda x: F.relu(x) ** 2), ("sigmoid", torch.sigmoid),
                 ("tanh", torch.tanh)]:
    case("act_" + name, fn, data(4, 8))
case("swiglu", lambda g, u: F.silu(g) * u, data(4, 2, 3), data(5, 2, 3))
case("geglu", lambda g, u: F.gelu(g, approximate="tanh") * u, data(4, 2, 3), data(5, 2, 3))
case("softmax", lambda x: F.softmax(x, -1), data(6, 2, 5))
case("softcap", lambda x: 1.5 * torch.tanh(x / 1.5), data(6, 2, 5))

import numpy as np
import gguf

for name, kind in [("q8_0", gguf.GGMLQuantizationType.Q8_0), ("q4_0", gguf.GGMLQuantizationType.Q4_0),
                   ("q4_k", gguf.GGMLQuantizationType.Q4_K), ("q6_k", gguf.GGMLQuantizationType.Q6_K)]:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = np.array([(i * i * 31 + i * 7 + 5) % 251 for i in range(2 * size)], dtype=np.uint8)
    for b in range(2):
        half = np.frombuffer(np.array([0.0625 * (b + 1), 0.125], dtype=np.float16).tobytes(), dtype=np.uint8)
        at = b * size + (208 if name == "q6_k" else 0)
        n = 4 if name == "q4_k" else 2
        raw[at:at + n] = half[:n]
    emit("blocks_" + name, torch.tensor(gguf.dequantize(raw, kind).astype(np.float64)))
print("\n#endif")
