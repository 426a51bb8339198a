#!/usr/bin/env python3
"""Hashes of what ggml writes for numbers of a simple generator: the table in tests/tensor/t_quantize.c.

    python tools/vectors/quantize.py LIBRARY      a shared library that exports ggml_quantize_chunk"""
import ctypes, sys
import numpy as np

BLOCKS = {"q8_0": (8, 32, 34), "q4_0": (2, 32, 18), "q4_k": (12, 256, 144), "q6_k": (14, 256, 210)}
N, KINDS = 256 * 64, 6


def numbers(kind):
    """Uniform in (-1, 1) from a linear congruence, then by kind: as they are; positive; mostly zero; multiples of a
    quarter; a scale for each 16 from 2^-12 to 2^3; tiny."""
    s = np.uint32(kind + 1)
    out = np.empty(N, np.float32)
    state = int(s)
    for i in range(N):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        x = ((state >> 8) - (1 << 23)) / (1 << 23)
        if kind == 1: x = abs(x)
        if kind == 2 and (state >> 4) % 10 < 7: x = 0.0
        if kind == 3: x = np.floor(x * 16) / 4
        if kind == 4: x = x * 2.0 ** ((i // 16 * 7) % 16 - 12)
        if kind == 5: x = x * 2.0 ** -40
        out[i] = x
    return out


def fnv(data):
    h = 0xcbf29ce484222325
    for b in data.tobytes():
        h = ((h ^ b) * 0x100000001b3) & 0xFFFFFFFFFFFFFFFF
    return h


lib = ctypes.CDLL(sys.argv[1])
lib.ggml_quantize_chunk.restype = ctypes.c_size_t
lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
for name, (number, block, size) in BLOCKS.items():
    row = []
    for kind in range(KINDS):
        x, out = numbers(kind), np.zeros(N // block * size, np.uint8)
        lib.ggml_quantize_chunk(number, x.ctypes.data, out.ctypes.data, 0, N // 256, 256, None)
        row.append(f"0x{fnv(out):016x}")
    print(f"    {{TL_{name.upper()}, {{{', '.join(row)}}}}},")
