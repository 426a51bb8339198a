#!/usr/bin/env python3
"""tests/vectors/f8.safetensors: numbers, and what PyTorch's two f8 types make of them.

    python tools/vectors/f8.py tests/vectors/f8.safetensors

x (n) f32: every f8 number, the middles between neighbours and what lies just beside those, both ends of the ranges, the
infinities, NaN; e4m3, e5m2 (n) u8: x.to(float8), which keeps e4m3 within its range and lets e5m2 become infinite; e4m3.all, e5m2.all (256) f32: every byte widened."""
import struct
import sys

import torch
from safetensors.torch import save_file


def neighbours(v):
    if v == 0 or v != v or v in (float("inf"), float("-inf")):
        return [v]
    bits = struct.unpack("<I", struct.pack("<f", v))[0]
    return [struct.unpack("<f", struct.pack("<I", b))[0] for b in (bits - 1, bits, bits + 1)]


out, x = {}, [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, -1e-45, 1e-10, 3e38, 447.9, 448.0, 463.9, 464.0,
              464.1, 479.9, 480.0, 500.0, -464.0, -465.0, 57344.0, 61439.9, 61440.0, 61441.0, 65536.0, -61440.0]
for name, t in (("e4m3", torch.float8_e4m3fn), ("e5m2", torch.float8_e5m2)):
    every = torch.arange(256, dtype=torch.uint8).view(t).float()
    out[name + ".all"] = every
    v = sorted({float(a) for a in every if torch.isfinite(a) and a >= 0})
    for a, b in zip(v, v[1:]):
        x += neighbours(a) + neighbours((a + b) / 2) + [-(a + b) / 2]
out["x"] = torch.tensor(x, dtype=torch.float32)
out["e4m3"] = out["x"].to(torch.float8_e4m3fn).view(torch.uint8)
out["e5m2"] = out["x"].to(torch.float8_e5m2).view(torch.uint8)
save_file(out, sys.argv[1])
print(len(x), "numbers")
