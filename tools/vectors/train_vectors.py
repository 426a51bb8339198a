#!/usr/bin/env python3
"""Vectors for tests/train/t_torch.c: tiny models of transformers, trained by PyTorch.

    python tools/vectors/train_vectors.py tests/vectors/train [NAME...]

For each model, one folder: config.json and model.safetensors (f32, Hugging Face's names), and vectors.safetensors:
  ids (B, T+1) i32                     the batch of every step (the same)
  logits (B*T, V) f64                  of the first step, in float64
  grad.NAME f64                        of every weight, in float64, unclipped
  bf16.logits, bf16.grad.NAME (1) f64  largest error of PyTorch's own bf16 (weights and activations in bf16)
                                       against float64, in units of the tensor's largest magnitude
  losses, norms (10) f64               of ten steps of AdamW with clipping, in float64
  final.NAME f64                       weights after them
  balance (10) f64                     mixtures of experts: the load-balancing loss, beside losses
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig,
                          MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM)
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

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
    sizes = dict(vocab_size=V, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                 max_position_embeddings=16, tie_word_embeddings=False, rms_norm_eps=1e-6, bos_token_id=0,
                 eos_token_id=0, pad_token_id=None, router_aux_loss_coef=0.25)
    yield "qwen3_moe", Qwen3MoeForCausalLM, Qwen3MoeConfig(
        **sizes, intermediate_size=24, moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2, head_dim=8,
        norm_topk_prob=False)
    yield "mixtral", MixtralForCausalLM, MixtralConfig(
        **sizes, intermediate_size=12, num_local_experts=3, num_experts_per_tok=2, rope_theta=10000.0)


def spread(model):
    """Initial values of use to a test: norms are not one, biases not zero, and logits differ."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((torch.randn_like(p) * (0.15 if p.ndim >= 2 else 0.1) + (p if p.ndim == 1 else 0)).float().to(p))


def forward(model, ids):
    logits = model(input_ids=ids[:, :-1]).logits
    return logits, torch.nn.functional.cross_entropy(logits.reshape(-1, V).to(torch.promote_types(logits.dtype, torch.float32)), ids[:, 1:].reshape(-1))


def balance(model, ids):
    """The load-balancing loss with its coefficient; 0 without experts."""
    c = model.config
    if not hasattr(c, "router_aux_loss_coef"):
        return 0.0
    r = model(input_ids=ids[:, :-1], output_router_logits=True).router_logits
    return c.router_aux_loss_coef * load_balancing_loss_func(r, c.num_local_experts, c.num_experts_per_tok)


def named(model, get=lambda p: p):
    """Parameters under the names of files: there every expert has tensors of its own."""
    mixtral = model.config.model_type == "mixtral"
    for n, p in model.named_parameters():
        p = get(p).detach()
        if mixtral:
            n = n.replace(".mlp.", ".block_sparse_moe.")
        if not n.endswith(("experts.gate_up_proj", "experts.down_proj")):
            yield n, p
            continue
        stem = n[:n.rindex(".")]
        names = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
        for e in range(p.shape[0]):
            if n.endswith("gate_up_proj"):
                for name, half in zip(names, p[e].chunk(2)):
                    yield f"{stem}.{e}.{name}.weight", half.contiguous()
            else:
                yield f"{stem}.{e}.{names[2]}.weight", p[e].contiguous()


def one_step(model, ids):
    model.zero_grad()
    logits, loss = forward(model, ids)
    (loss + balance(model, ids)).backward()
    return logits.detach().reshape(-1, V).double(), {n: g.double() for n, g in named(model, lambda p: p.grad)}


def error(a, b):
    return ((a - b).abs().max() / b.abs().max()).reshape(1)


def ten_steps(model, ids, out):
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}],
                            lr=LR, betas=BETAS, eps=EPS)
    losses, norms, extra = [], [], []
    for _ in range(STEPS):
        opt.zero_grad()
        _, loss = forward(model, ids)
        more = balance(model, ids)
        (loss + more).backward()
        extra.append(float(more))
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        losses.append(loss.item())
        opt.step()
    out["losses"], out["norms"] = torch.tensor(losses, dtype=torch.float64), torch.tensor(norms, dtype=torch.float64)
    if hasattr(model.config, "router_aux_loss_coef"):
        out["balance"] = torch.tensor(extra, dtype=torch.float64)
    for n, p in named(model):
        out["final." + n] = p.double()


def main(folder, only):
    for name, make, config in models():
        if only and name not in only:
            continue
        torch.manual_seed(1234)
        config._attn_implementation = config._experts_implementation = "eager"
        model = make(config).double().eval()
        spread(model)
        state = {n: p.float().contiguous().clone() for n, p in named(model)}
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
                "hidden_act rms_norm_eps rope_theta rope_parameters moe_intermediate_size num_experts num_local_experts "
                "num_experts_per_tok norm_topk_prob router_aux_loss_coef head_dim tie_word_embeddings resid_pdrop embd_pdrop").split()
        (path / "config.json").write_text(json.dumps({k: keep[k] for k in keys if k in keep}, indent=2) + "\n")
        save_file(state, path / "model.safetensors", metadata={"format": "pt"})
        save_file({k: v.contiguous() for k, v in out.items()}, path / "vectors.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
