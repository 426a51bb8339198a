#!/usr/bin/env python3
"""Vectors for tests/train/t_torch.c: two layers of Nystromformer in PyTorch, float64, written from the paper's formulas.

    python tools/vectors/nystrom_vectors.py tests/vectors/train

Q', K' are means of segments of the rotated q and k; with A = softmax(Q' K'^T / sqrt(d)) a head is
    softmax(q K'^T / sqrt(d)) Z softmax(Q' k^T / sqrt(d)) v,   Z six times Z <- Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4
from A^T over its largest sum of a column. Every token sees all others; what is predicted is the next id all the same,
so that the test needs no masks. The folder has config.json, model.safetensors (f32) and vectors.safetensors (ids, loss and
grad.NAME of every weight, f64).
"""
import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

B, T, V, DIM, H, F, DEPTH, R = 3, 23, 40, 16, 2, 20, 2, 5
HEAD = DIM // H


def number(*shape, std=0.3, mean=0.0):
    return torch.nn.Parameter((torch.randn(*shape) * std + mean).float().double())


def norm(x, gain):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain


def rope(x):
    angle = torch.arange(T).double()[:, None] * 10000.0 ** (-torch.arange(0, HEAD, 2).double() / HEAD)
    a, b, c, d = x[..., : HEAD // 2], x[..., HEAD // 2:], angle.cos(), angle.sin()
    return torch.cat((a * c - b * d, b * c + a * d), -1)


def heads(x):
    return x.reshape(B, T, H, HEAD).transpose(1, 2)


def means(x):
    return torch.stack([x[:, :, r * T // R:(r + 1) * T // R].mean(2) for r in range(R)], 2)


def nystrom(q, k, v):
    weigh = lambda x, y: (x @ y.transpose(-1, -2) / math.sqrt(HEAD)).softmax(-1)
    Q, K = means(q), means(k)
    A = weigh(Q, K)
    Z = A.transpose(-1, -2) / A.sum(-2).max(-1).values[..., None, None]
    eye = torch.eye(R).double()
    for _ in range(6):
        P = A @ Z
        Z = Z @ (13 * eye - P @ (15 * eye - P @ (7 * eye - P))) / 4
    return weigh(q, K) @ Z @ (weigh(Q, k) @ v)


torch.manual_seed(11)
w = {"model.embed_tokens.weight": number(V, DIM, std=0.8), "model.norm.weight": number(DIM, mean=1.0)}
for i in range(DEPTH):
    at = f"model.layers.{i}."
    w[at + "input_layernorm.weight"], w[at + "post_attention_layernorm.weight"] = number(DIM, mean=1.0), number(DIM, mean=1.0)
    for p in "qkvo":
        w[at + f"self_attn.{p}_proj.weight"] = number(DIM, DIM, std=0.6 if p in "qk" else 0.3)
    w[at + "mlp.gate_proj.weight"], w[at + "mlp.up_proj.weight"] = number(F, DIM), number(F, DIM)
    w[at + "mlp.down_proj.weight"] = number(DIM, F)
ids = torch.randint(0, V, (B, T + 1))
x = w["model.embed_tokens.weight"][ids[:, :-1]]
for i in range(DEPTH):
    p = lambda name: w[f"model.layers.{i}.{name}.weight"]
    y = norm(x, p("input_layernorm"))
    q, k, v = (heads(y @ p(f"self_attn.{n}_proj").T) for n in "qkv")
    x = x + nystrom(rope(q), rope(k), v).transpose(1, 2).reshape(B, T, DIM) @ p("self_attn.o_proj").T
    y = norm(x, p("post_attention_layernorm"))
    x = x + (torch.nn.functional.silu(y @ p("mlp.gate_proj").T) * (y @ p("mlp.up_proj").T)) @ p("mlp.down_proj").T
logits = norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T
loss = torch.nn.functional.cross_entropy(logits.reshape(-1, V), ids[:, 1:].reshape(-1))
loss.backward()
path = Path(sys.argv[1]) / "nystrom"
path.mkdir(parents=True, exist_ok=True)
config = {"model_type": "llama", "vocab_size": V, "hidden_size": DIM, "intermediate_size": F, "num_hidden_layers": DEPTH,
          "num_attention_heads": H, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
          "tilia": {"objective": "mlm", "mask_token_id": V - 1, "mixers": ["nystromformer"], "landmarks": R}}
(path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
save_file({n: p.detach().float().contiguous() for n, p in w.items()}, path / "model.safetensors", metadata={"format": "pt"})
out = {"ids": ids.int(), "loss": loss.detach().reshape(1)}
out.update({"grad." + n: p.grad.contiguous() for n, p in w.items()})
save_file(out, path / "vectors.safetensors")
