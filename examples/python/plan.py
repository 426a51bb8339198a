"""What models cost before they are made: parameters, FLOPs, memory.

    python plan.py
"""

import tilia

# %% Presets: one training step of 8 sequences
print("                 params   step GFLOP   weights   training")
for name in ("tiny", "char-cpu", "stories", "gpt2", "gpt2-medium"):
    p = tilia.plan(f"preset:{name}", rows=8, train=True)
    print(f"{name:12} {p.params / 1e6:9.2f}M {p.flops / 1e9:12.1f} {p.weights / 1e6:7.0f}MB {p.memory / 1e6:8.0f}MB")

# %% Memory against time: recomputing blocks in the backward pass
for recompute in (False, True):
    p = tilia.plan("preset:gpt2", rows=4, context=1024, train=True, recompute=recompute)
    print(f"gpt2, recompute {recompute}: activations {p.activations / 1e9:.2f} GB, {p.flops / 1e12:.2f} TFLOP")

# %% A configuration of one's own: how the cache grows with key-value heads
for kv_heads in (8, 4, 1):
    config = {"model_type": "llama", "vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1376,
              "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": kv_heads,
              "max_position_embeddings": 2048, "rms_norm_eps": 1e-5}  # fmt: skip
    p = tilia.plan(config)
    print(f"{kv_heads} key-value heads: {p.params / 1e6:.1f}M parameters, {p.cache_per_token} bytes a token cached")

# %% The plan is the truth: what a trainer holds
model = tilia.Model.create("preset:tiny")
trainer = tilia.Trainer(model, steps=1, rows=8)
p = tilia.plan("preset:tiny", rows=8, train=True)
print(f"planned {p.memory} bytes, held {trainer.bytes} (with its batch)")
