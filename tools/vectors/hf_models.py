#!/usr/bin/env python3
"""Tiny random models of every architecture, made by transformers, with their logits: tests/vectors/hf/NAME/.

Weights are random enough that every part matters (gains far from one, biases, caps that bite) and are rounded to
bf16, in which they are stored; transformers computes in f32. want.safetensors holds ids, the logits of every position
and, where the model is asked to go on, the ids that follow greedily.

    python tools/vectors/hf_models.py [NAME...]
    python tools/vectors/hf_models.py check DIR NAME
    python tools/vectors/hf_models.py table build/tilia

With "check DIR NAME" it loads DIR, a directory that Tilia wrote, and compares its logits with NAME's; "table" does so
for every architecture: as Tilia saves it, in bf16, and after the way through a GGUF file."""
import json, os, shutil, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, MistralConfig, MixtralConfig,
                          Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig)

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "vectors", "hf")
SIZES = dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None)
LONG = [1.0 + 0.75 * i for i in range(4)]
SHORT = [1.0 + 0.1 * i for i in range(4)]

MODELS = {
    "gpt2": GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2),
    "llama": LlamaConfig(**SIZES, head_dim=16, rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0,
                         low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
    "llama_bias": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
                              rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)),
    "mistral": MistralConfig(**SIZES, sliding_window=8),
    "qwen2": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=1,
                         tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, rope_parameters=dict(rope_type="yarn", rope_theta=1000.0, factor=4.0,
                         original_max_position_embeddings=16)),
    "gemma2": Gemma2Config(**SIZES, head_dim=16, query_pre_attn_scalar=24, sliding_window=8,
                           attn_logit_softcapping=5.0, final_logit_softcapping=7.0),
    "phi3": Phi3Config(**dict(SIZES, num_attention_heads=2, num_key_value_heads=1), sliding_window=24,
                       original_max_position_embeddings=16,
                       rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, short_factor=SHORT,
                                            long_factor=LONG, partial_rotary_factor=0.5)),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, head_dim=16, moe_intermediate_size=16, num_experts=6, num_experts_per_tok=3,
                                norm_topk_prob=True),
    "qwen3_moe_mixed": Qwen3MoeConfig(**SIZES, moe_intermediate_size=24, num_experts=5, num_experts_per_tok=2,
                                      norm_topk_prob=False, mlp_only_layers=[1], use_sliding_window=True,
                                      sliding_window=8),
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, sliding_window=8),
}


def randomize(model, seed):
    g = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type == "gemma2"
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=g)
        if p.dim() >= 2:
            r *= 0.3 if "embed" in name or "wte" in name else 0.25
        elif name.endswith("bias"):
            r *= 0.2
        else:
            r = r * 0.3 + (0.0 if gemma else 1.0)
        p.data.copy_(r.to(torch.bfloat16).float())


def forward(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()


def greedy(model, ids, n):
    ids = list(ids)
    for _ in range(n):
        ids.append(int(forward(model, ids)[-1].argmax()))
    return ids


def make(name, config, seed):
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    randomize(model, seed)
    where = os.path.join(ROOT, name)
    shutil.rmtree(where, ignore_errors=True)
    ids = [(i * i * 7 + i * 13 + seed * 29) % 61 for i in range(40)]
    want = {"ids": torch.tensor(ids, dtype=torch.int32), "logits": forward(model, ids),
            "greedy": torch.tensor(greedy(model, ids[:20], 20), dtype=torch.int32)}
    if name == "phi3":  # up to the old context the other list of factors counts
        want["short_logits"] = forward(model, ids[:16])
    model.to(torch.bfloat16).save_pretrained(where)
    os.path.exists(os.path.join(where, "generation_config.json")) and os.remove(os.path.join(where, "generation_config.json"))
    save_file({k: v.contiguous() for k, v in want.items()}, os.path.join(where, "want.safetensors"))
    size = sum(os.path.getsize(os.path.join(where, f)) for f in os.listdir(where))
    print(f"{name}: {size} bytes, logits up to {want['logits'].abs().max():.2f}, greedy {want['greedy'].tolist()[20:]}")
    assert size < 150000


def difference(where, name):
    model = AutoModelForCausalLM.from_pretrained(where, attn_implementation="eager", dtype=torch.float32).eval()
    want = load_file(os.path.join(ROOT, name, "want.safetensors"))
    return float((forward(model, want["ids"].tolist()) - want["logits"]).abs().max())


def check(where, name):
    off = difference(where, name)
    print(f"{name}: transformers on {where} is off by {off:.3g}")
    assert off < 1e-4


def table(tilia):
    """Largest difference of transformers' logits, on what Tilia wrote, from those of the model it read."""
    worst = 0
    print(f"{'':16} {'directory':>10} {'bf16':>10} {'via GGUF':>10}")
    for name in MODELS:
        with tempfile.TemporaryDirectory() as tmp:
            def convert(src, dst, *more):
                run = subprocess.run([tilia, "convert", src, dst, "--quiet", *more], capture_output=True, text=True)
                return run.returncode == 0
            src = os.path.join(ROOT, name)
            cells = []
            for ways in ([("dir",)], [("dir16", "--type", "bf16")], [("m.gguf",), ("back",)]):
                at = src
                for to, *more in ways:
                    at = os.path.join(tmp, to) if at and convert(at, os.path.join(tmp, to), *more) else None
                cells.append(difference(at, name) if at else None)
            print(f"{name:16} " + " ".join("   refused" if c is None else f"{c:10.2g}" for c in cells))
            worst = max([worst] + [c for c in cells if c is not None])
    print(f"worst {worst:.2g}")
    assert worst < 1e-4


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "check":
        check(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 3 and sys.argv[1] == "table":
        table(sys.argv[2])
    else:
        for seed, (name, config) in enumerate(MODELS.items()):
            if len(sys.argv) < 2 or name in sys.argv[1:]:
                make(name, config, seed + 1)
