#!/usr/bin/env python3
"""Vectors for tests/train/t_torch.c: two models of gated attention units in PyTorch, float64, their weights under our names.

    PYTHONPATH=<FLASH-pytorch> python tools/vectors/gau_vectors.py tests/vectors/train

Folders, each with config.json, model.safetensors (f32) and vectors.safetensors (ids (B, T+1) i32, logits (B*T, V) f64 and
grad.NAME f64 of every weight):
  gau_alpha  written from the formulas of GAU-alpha: [u, v, z] = silu(x W); q, k = RoPE of neighbours (z gamma);
             A = softmax(kappa_i q k^T / sqrt(s)), kappa_i = log(max(l_i, 16)) / log 512 of the l_i keys that row i sees;
             x <- RMS(x + (u * A v) Wo): no bias, no offset, no gain. Causal.
  lucid_gau  the class GAU of the package FLASH-pytorch (scores and T5 bias over n), between an embedding and a head.
"""
import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

B, V = 3, 40
DIM, S, E, DEPTH = 16, 10, 24, 2


def save(folder, name, config, weights, ids, logits):
    """weights: our name -> (parameter, what of it and its gradient goes into the file)."""
    logits.retain_grad()
    torch.nn.functional.cross_entropy(logits.reshape(-1, V), ids[:, 1:].reshape(-1)).backward()
    out = {"ids": ids.int(), "logits": logits.detach().reshape(-1, V)}
    out.update({"grad." + n: f(*[p.grad for p in ps]) for n, (ps, f) in weights.items()})
    path = Path(folder) / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({n: f(*[p.detach() for p in ps]).float().contiguous() for n, (ps, f) in weights.items()},
              path / "model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in out.items()}, path / "vectors.safetensors")


def number(*shape, std=0.2, mean=0.0):
    return torch.nn.Parameter((torch.randn(*shape) * std + mean).float().double())


def rope(x):
    n, s = x.shape[-2:]
    angle = torch.arange(n).double()[:, None] * 10000.0 ** (-torch.arange(0, s, 2).double() / s)
    a, b, c, d = x[..., 0::2], x[..., 1::2], angle.cos(), angle.sin()
    return torch.stack((a * c - b * d, b * c + a * d), -1).reshape(x.shape)


def rms(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def gau_alpha(folder):
    T = 24
    torch.manual_seed(7)
    embed = number(V, DIM, std=0.5)
    layers = [(number(2 * E + S, DIM), number(2, S, mean=1.0), number(DIM, E)) for _ in range(DEPTH)]
    ids = torch.randint(0, V, (B, T + 1))
    x = embed[ids[:, :-1]]
    seen = torch.arange(1, T + 1).double()
    kappa = seen.clamp(min=16).log() / math.log(512)
    for w, gamma, out in layers:
        u, v, z = torch.nn.functional.silu(x @ w.T).split([E, E, S], -1)
        q, k = rope(z * gamma[0]), rope(z * gamma[1])
        t = kappa[:, None] * (q @ k.transpose(1, 2)) / math.sqrt(S)
        t = t.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
        x = rms(x + (u * (t.softmax(-1) @ v)) @ out.T)
    same = lambda p: p
    weights = {"model.embed_tokens.weight": ([embed], same)}
    for i, (w, gamma, out) in enumerate(layers):
        at = f"model.layers.{i}.gau."
        weights[at + "in_proj.weight"] = ([w], same)
        weights[at + "gamma"] = ([gamma], lambda p: p.reshape(-1))
        weights[at + "out_proj.weight"] = ([out], same)
    config = {"model_type": "gau", "vocab_size": V, "hidden_size": DIM, "num_hidden_layers": DEPTH, "expansion": E,
              "shared_size": S, "max_position_embeddings": 32, "norm_eps": 1e-5,
              "tilia": {"score": "softmax", "score_kappa": True, "norm": "rmsnorm", "norm_place": "post", "norm_gain": False,
                        "gate_offset": False, "bias_qkv": False, "bias_out": False, "rope_interleaved": True}}
    save(folder, "gau_alpha", config, weights, ids, x @ embed.T)


def lucid_gau(folder):
    from flash_pytorch.flash_pytorch import GAU
    T = 12
    torch.manual_seed(8)
    embed, head = number(V, DIM, std=0.5), number(V, DIM)
    layers = [GAU(dim=DIM, query_key_dim=S, expansion_factor=E / DIM, causal=True).double().eval() for _ in range(DEPTH)]
    with torch.no_grad():
        for l in layers:
            for p in l.parameters():
                p.copy_((torch.randn_like(p) * 0.3 + (p if p.ndim == 1 else 0)).float().double())
    ids = torch.randint(0, V, (B, T + 1))
    x = embed[ids[:, :-1]]
    for l in layers:
        x = l(x)
    same = lambda p: p
    weights = {"model.embed_tokens.weight": ([embed], same), "lm_head.weight": ([head], same)}
    for i, l in enumerate(layers):
        at = f"model.layers.{i}."
        for kind in ("weight", "bias"):
            join = lambda h, z: torch.cat((*reversed(h.chunk(2)), z))  # theirs: values, gate; ours: gate, values, base
            weights[at + "gau.in_proj." + kind] = ([getattr(l.to_hidden[0], kind), getattr(l.to_qk[0], kind)], join)
            weights[at + "gau.out_proj." + kind] = ([getattr(l.to_out[0], kind)], same)
            weights[at + "norm." + kind] = ([getattr(l.norm, kind)], same)
        weights[at + "gau.gamma"] = ([l.offsetscale.gamma], lambda p: p.reshape(-1))
        weights[at + "gau.beta"] = ([l.offsetscale.beta], lambda p: p.reshape(-1))
        weights[at + "gau.rel_bias"] = ([l.rel_pos_bias.relative_attention_bias.weight], lambda p: p.reshape(-1))
    # what stands between the last layer and the head is ours
    gain, bias = number(DIM, mean=1.0), number(DIM)
    weights["model.norm.weight"], weights["model.norm.bias"] = ([gain], same), ([bias], same)
    x = torch.nn.functional.layer_norm(x, (DIM,), gain, bias, 1e-5)
    config = {"model_type": "gau", "vocab_size": V, "hidden_size": DIM, "num_hidden_layers": DEPTH, "expansion": E,
              "shared_size": S, "max_position_embeddings": 32, "norm_eps": 1e-5, "tie_word_embeddings": False,
              "tilia": {"norm": "layernorm", "bias_norm": True, "positions": "none", "score_scale": "lucid_gau",
                        "score_fixed": T, "rel_bias": "t5"}}
    save(folder, "lucid_gau", config, weights, ids, x @ head.T)


if __name__ == "__main__":
    gau_alpha(sys.argv[1])
    lucid_gau(sys.argv[1])
