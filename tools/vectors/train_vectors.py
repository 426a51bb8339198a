#!/usr/bin/env python3
"""Vectors for tests/train/t_torch.c: a tiny GPT-2 and a tiny Llama of transformers, trained by PyTorch.

    python tools/vectors/train_vectors.py tests/vectors/train

For each model, one folder: config.json and model.safetensors (f32, Hugging Face's names), and vectors.safetensors:
  ids (B, T+1) i32                     the batch of every step (the same)
  logits (B*T, V) f64                  of the first step, in float64
  grad.NAME f64                        of every weight, in float64, unclipped
  bf16.logits, bf16.grad.NAME (1) f64  largest error of PyTorch's own bf16 (weights and activations in bf16)
                                       against float64, in units of the tensor's largest magnitude
  losses, norms (10) f64               of ten steps of AdamW with clipping, in float64
  final.NAME f64                       weights after them
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

B, T, V = 3, 12, 40
STEPS, LR, BETAS, EPS, DECAY, CLIP = 10, 1e-2, (0.9, 0.95), 1e-8, 0.1, 1.0


def models():
    yield "gpt2", GPT2LMHeadModel, GPT2Config(
        vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=16, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        bos_token_id=0, eos_token_id=0)
    yield "llama", LlamaForCausalLM, LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, tie_word_embeddings=False, rms_norm_eps=1e-6,
        bos_token_id=0, eos_token_id=0, pad_token_id=None)


def spread(model):
    """Initial values of use to a test: norms are not one, biases not zero, and logits differ."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((torch.randn_like(p) * (0.15 if p.ndim == 2 else 0.1) + (p if p.ndim == 1 else 0)).float().to(p))


def forward(model, ids):
    logits = model(input_ids=ids[:, :-1]).logits
    return logits, torch.nn.functional.cross_entropy(logits.reshape(-1, V).to(torch.promote_types(logits.dtype, torch.float32)), ids[:, 1:].reshape(-1))


def one_step(model, ids):
    model.zero_grad()
    logits, loss = forward(model, ids)
    loss.backward()
    return logits.detach().reshape(-1, V).double(), {n: p.grad.double() for n, p in model.named_parameters()}


def error(a, b):
    return ((a - b).abs().max() / b.abs().max()).reshape(1)


def ten_steps(model, ids, out):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim != 2]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
                            lr=LR, betas=BETAS, eps=EPS)
    losses, norms = [], []
    for _ in range(STEPS):
        opt.zero_grad()
        _, loss = forward(model, ids)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        losses.append(loss.item())
        opt.step()
    out["losses"], out["norms"] = torch.tensor(losses, dtype=torch.float64), torch.tensor(norms, dtype=torch.float64)
    for n, p in model.named_parameters():
        out["final." + n] = p.detach().double()


def main(folder):
    for name, make, config in models():
        torch.manual_seed(1234)
        config._attn_implementation = "eager"
        model = make(config).double().eval()
        spread(model)
        state = {n: p.detach().float().contiguous().clone() for n, p in model.named_parameters()}
        ids = torch.randint(0, V, (B, T + 1))
        out = {"ids": ids.int()}
        logits, grads = one_step(model, ids)
        out["logits"] = logits
        out.update({"grad." + n: g for n, g in grads.items()})
        half = make(config).eval()
        half.load_state_dict(model.state_dict(), strict=False)
        half = half.to(torch.bfloat16)
        l16, g16 = one_step(half, ids)
        out["bf16.logits"] = error(l16, logits)
        out.update({"bf16.grad." + n: error(g16[n], g) for n, g in grads.items()})
        ten_steps(model, ids, out)
        path = Path(folder) / name
        path.mkdir(parents=True, exist_ok=True)
        keep = json.loads(config.to_json_string(use_diff=False))
        keys = ("model_type vocab_size n_embd n_layer n_head n_positions activation_function layer_norm_epsilon hidden_size "
                "intermediate_size num_hidden_layers num_attention_heads num_key_value_heads max_position_embeddings "
                "hidden_act rms_norm_eps rope_theta tie_word_embeddings resid_pdrop embd_pdrop").split()
        (path / "config.json").write_text(json.dumps({k: keep[k] for k in keys if k in keep}, indent=2) + "\n")
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        save_file({k: v.contiguous() for k, v in out.items()}, path / "vectors.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
