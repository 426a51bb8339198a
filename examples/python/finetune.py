"""Continues the training of a model on a text of one's own, with PyTorch-like control over every step.

    python finetune.py MODEL TEXTFILE [STEPS]
"""

import sys

import numpy as np

import tilia

if len(sys.argv) < 3:
    sys.exit(__doc__)

# %% The model, and its loss on the new text before
model = tilia.Model.open(sys.argv[1])
text = open(sys.argv[2], encoding="utf-8").read()
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 50
context = min(128, model.info.context)
trainer = tilia.Trainer(model, steps=steps, rows=4, context=context, lr=3e-4, warmup=5, schedule="wsd")
print(f"before: {trainer.eval(text):.3f} nats per token")

# %% Own batches: rows of context + 1 ids, taken at random places
ids = np.asarray(model.tokenizer.encode(text))
random = np.random.default_rng(1)
for _ in range(steps):
    begin = random.integers(0, len(ids) - context - 1, size=4)
    m = trainer.step(np.stack([ids[b : b + context + 1] for b in begin]))
    if m.step % 10 == 0:
        print(f"step {m.step}  loss {m.loss:.3f}  gradient {m.norm:.2f}  lr {m.lr:.1e}")
print(f"after:  {trainer.eval(text):.3f} nats per token")

# %% The same weights answer at once, and are saved
print(model.generate(text[:20], max_tokens=40, temperature=0.7, seed=1))
model.save("finetuned-model")
