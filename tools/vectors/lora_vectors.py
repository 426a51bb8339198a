#!/usr/bin/env python3
"""Vectors for tests/train/t_lora.c: low-rank additions written by hand in PyTorch over the models of train_vectors.py.

    python tools/vectors/lora_vectors.py tests/vectors/train tests/vectors/lora

For each model one folder in PEFT's form (adapter_config.json, adapter_model.safetensors in f32, A and B random) with
vectors.safetensors:
  ids (B, T+1) i32
  logits (B*T, V) f64     with the additions
  grad.NAME f64           of every A and B, in float64, unclipped
  losses, norms (10) f64  of ten steps of AdamW on the additions alone, with clipping
  final.NAME f64          A and B after them
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

B, T, V, RANK, ALPHA = 3, 12, 40, 3, 4.5
STEPS, LR, BETAS, EPS, CLIP = 10, 1e-2, (0.9, 0.95), 1e-8, 1.0
TARGETS = {"llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
           "gpt2": ["attn.c_attn", "mlp.c_proj"]}


def adapt(model, targets):
    """Hooks that add alpha/rank (x A^T) B^T to the chosen modules; the new parameters by PEFT's names."""
    new = {}
    for name, module in model.named_modules():
        if not any(name.endswith("." + t) for t in targets):
            continue
        into, out = module.weight.shape if isinstance(module, Conv1D) else module.weight.shape[::-1]
        a = torch.nn.Parameter((torch.randn(RANK, into) * 0.3).float().double())
        b = torch.nn.Parameter((torch.randn(out, RANK) * 0.3).float().double())
        module.register_forward_hook(lambda m, x, y, a=a, b=b: y + ALPHA / RANK * (x[0] @ a.T) @ b.T)
        new[f"base_model.model.{name}.lora_A.weight"], new[f"base_model.model.{name}.lora_B.weight"] = a, b
    return new


def forward(model, ids):
    logits = model(input_ids=ids[:, :-1]).logits
    return logits, torch.nn.functional.cross_entropy(logits.reshape(-1, V), ids[:, 1:].reshape(-1))


def main(models, folder):
    for name in ("llama", "gpt2"):
        torch.manual_seed(4321)
        config = AutoConfig.from_pretrained(Path(models) / name)
        config._attn_implementation = "eager"
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
        model = AutoModelForCausalLM.from_config(config).double().eval()
        model.load_state_dict(load_file(Path(models) / name / "model.safetensors"), strict=False)
        model.requires_grad_(False)
        new = adapt(model, TARGETS[name])
        path = Path(folder) / name
        path.mkdir(parents=True, exist_ok=True)
        save_file({n: p.detach().float().contiguous() for n, p in new.items()}, path / "adapter_model.safetensors",
                  metadata={"format": "pt"})
        (path / "adapter_config.json").write_text(json.dumps({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0,
            "target_modules": TARGETS[name], "bias": "none", "fan_in_fan_out": name == "gpt2"}, indent=2) + "\n")
        ids = torch.randint(0, V, (B, T + 1))
        out = {"ids": ids.int()}
        logits, loss = forward(model, ids)
        loss.backward()
        out["logits"] = logits.detach().reshape(-1, V)
        out.update({"grad." + n: p.grad.clone() for n, p in new.items()})
        opt = torch.optim.AdamW(new.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=0.0)
        losses, norms = [], []
        for _ in range(STEPS):
            opt.zero_grad()
            _, loss = forward(model, ids)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(new.values(), CLIP).item())
            losses.append(loss.item())
            opt.step()
        out["losses"], out["norms"] = (torch.tensor(x, dtype=torch.float64) for x in (losses, norms))
        out.update({"final." + n: p.detach() for n, p in new.items()})
        save_file({k: v.contiguous() for k, v in out.items()}, path / "vectors.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:3])
