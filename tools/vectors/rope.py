#!/usr/bin/env python3
"""tests/vectors/rope.safetensors: frequencies and the factor on cos and sin of every rope scaling, by transformers.

    python tools/vectors/rope.py tests/vectors/rope.safetensors

The model is the preset tiny: heads of 16, theta 10000, context 128, stretched 4 times to 512. NAME (8) f64, NAME.factor
(1) f64. ntk is not one of transformers': it is dynamic's base at the whole new context but for a constant, and so here
by its formula theta 4^(d / (d - 2))."""
import sys

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

LISTS = dict(short_factor=[1 + 0.1 * i for i in range(8)], long_factor=[1 + 0.75 * i for i in range(8)])
CASES = {
    "linear": (dict(rope_type="linear", factor=4.0), 512),
    "dynamic": (dict(rope_type="dynamic", factor=4.0), 512),
    "dynamic_short": (dict(rope_type="dynamic", factor=4.0), 100),
    "yarn": (dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128), 512),
    "yarn_mscale": (dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128, mscale=0.707,
                         mscale_all_dim=0.5, beta_fast=16.0, beta_slow=2.0), 512),
    "yarn_factor": (dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128, attention_factor=1.25), 512),
    "llama3": (dict(rope_type="llama3", factor=4.0, original_max_position_embeddings=128, low_freq_factor=1.0,
                    high_freq_factor=4.0), 512),
    "longrope": (dict(rope_type="longrope", original_max_position_embeddings=128, **LISTS), 512),
    "longrope_short": (dict(rope_type="longrope", original_max_position_embeddings=128, **LISTS), 128),
}
out = {}
for name, (scaling, seen) in CASES.items():
    kind = scaling["rope_type"]
    dynamic = kind == "dynamic"  # its context is the old one: it grows with what is seen
    c = LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=16, max_position_embeddings=128 if dynamic else 512,
                    rope_parameters=dict(rope_theta=10000.0, **scaling))
    freq, factor = ROPE_INIT_FUNCTIONS[kind](c, "cpu", seq_len=seen)
    out[name], out[name + ".factor"] = freq.double(), torch.tensor([factor], dtype=torch.float64)
base = 10000.0 * 4.0 ** (16 / 14)
out["ntk"], out["ntk.factor"] = base ** -(torch.arange(8, dtype=torch.float64) / 8), torch.ones(1, dtype=torch.float64)
save_file(out, sys.argv[1])
for k, v in out.items():
    print(k, v.tolist())
