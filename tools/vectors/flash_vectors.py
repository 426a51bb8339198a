#!/usr/bin/env python3
"""Vectors for tests/train/t_torch.c: FLASHTransformer of the package FLASH-pytorch, its weights under our names.

    python tools/vectors/flash_vectors.py tests/vectors/train

One folder, flash: config.json, model.safetensors (f32) and vectors.safetensors: ids (B, T+1) i32, logits (B*T, V) f64 and
grad.NAME f64 of every weight, in float64. What differs from ours and is only a question of order or form:
  values come before the gate, base apart from both: one matrix [gate, values, base];
  heads are quad q, lin q, quad k, lin k: ours quad q, quad k, lin q, lin k;
  T5 buckets times sqrt(s): a table of 2c-1 numbers with the same values (checked), whose gradient is taken.
"""
import json
import sys
from pathlib import Path

import torch
from flash_pytorch.flash_pytorch import FLASHTransformer
from safetensors.torch import save_file

B, T, V = 3, 12, 40
DIM, DEPTH, CHUNK, S, E = 16, 2, 5, 40, 24
ORDER = [0, 2, 1, 3]


class Table(torch.nn.Module):
    """What the buckets give at each distance."""

    def __init__(self, buckets):
        super().__init__()
        i = torch.arange(CHUNK)
        full = buckets(torch.zeros(CHUNK, CHUNK)).detach()
        t = torch.zeros(2 * CHUNK - 1, dtype=torch.float64)
        t[(i[None] - i[:, None] + CHUNK - 1).reshape(-1)] = full.reshape(-1)
        self.t = torch.nn.Parameter(t.float().double())

    def forward(self, x):
        i = torch.arange(CHUNK)
        return self.t[i[None] - i[:, None] + CHUNK - 1]


def renamed(model, of):
    """Our names; of: the weight or its gradient."""
    out = {"model.embed_tokens.weight": of(model.token_emb.weight), "tilia.sin_scale.weight": of(model.abs_pos_emb.scale),
           "model.norm.weight": of(model.to_logits[0].weight), "model.norm.bias": of(model.to_logits[0].bias),
           "lm_head.weight": of(model.to_logits[1].weight), "lm_head.bias": of(model.to_logits[1].bias)}
    for i, l in enumerate(model.layers):
        at = f"model.layers.{i}."
        for kind in ("weight", "bias"):
            v, gate = of(getattr(l.to_hidden[0], kind)).chunk(2)
            out[at + "gau.in_proj." + kind] = torch.cat((gate, v, of(getattr(l.to_qk[0], kind))))
            out[at + "gau.out_proj." + kind] = of(getattr(l.to_out, kind))
            out[at + "norm." + kind] = of(getattr(l.norm, kind))
        out[at + "gau.gamma"] = of(l.qk_offset_scale.gamma)[ORDER].reshape(-1)
        out[at + "gau.beta"] = of(l.qk_offset_scale.beta)[ORDER].reshape(-1)
        out[at + "gau.rel_bias"] = of(l.rel_pos_bias.t)
    return out


def main(folder):
    torch.manual_seed(1234)
    model = FLASHTransformer(dim=DIM, num_tokens=V, depth=DEPTH, group_size=CHUNK, query_key_dim=S,
                             expansion_factor=E / DIM, causal=True, norm_type="layernorm").double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not name.endswith("freqs"):  # of RoPE: a constant
                p.copy_((torch.randn_like(p) * 0.15 + (p if p.ndim == 1 else 0)).float().double())
    ids = torch.randint(0, V, (B, T + 1))
    before = model(ids[:, :-1])
    for l in model.layers:
        l.rel_pos_bias = Table(l.rel_pos_bias)
    logits = model(ids[:, :-1])
    assert (logits - before).abs().max() < 1e-5 * before.abs().max()
    torch.nn.functional.cross_entropy(logits.reshape(-1, V), ids[:, 1:].reshape(-1)).backward()
    out = {"ids": ids.int(), "logits": logits.detach().reshape(-1, V)}
    out.update({"grad." + n: g for n, g in renamed(model, lambda p: p.grad).items()})
    path = Path(folder) / "flash"
    path.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "flash", "vocab_size": V, "hidden_size": DIM, "num_hidden_layers": DEPTH, "expansion": E,
              "shared_size": S, "chunk_size": CHUNK, "max_position_embeddings": 16, "norm_eps": 1e-5,
              "tie_word_embeddings": False,
              "tilia": {"norm": "layernorm", "bias_norm": True, "bias_head": True, "token_shift": True, "scaled_sin": True,
                        "score_scale": "lucid_flash", "chunk_norm": "constant", "rope_interleaved": True,
                        "rope_partial": 0.8}}
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({n: p.detach().float().contiguous() for n, p in renamed(model, lambda p: p).items()},
              path / "model.safetensors", metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in out.items()}, path / "vectors.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
