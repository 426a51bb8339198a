"""Trains a small model on a text, writes with it, saves it, opens it again.

    python train.py TEXTFILE [STEPS]
"""

import sys

import tilia

if len(sys.argv) < 2:
    sys.exit(__doc__)

# %% A tokenizer, learnt from the text itself
text = open(sys.argv[1], encoding="utf-8").read()
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 200
held = text[len(text) * 9 // 10 :]
tokenizer = tilia.Tokenizer.train(text, vocab=1024)
print(f"{tokenizer.vocab} ids, {len(text) / len(tokenizer.encode(text)):.2f} characters a token")

# %% A model from a preset; what training will need, before anything is taken
model = tilia.Model.create("preset:demo", tokenizer, seed=1)
data = tilia.Dataset(tokenizer).add(text[: len(text) * 9 // 10])
trainer = tilia.Trainer(model, steps=steps, rows=8, context=128, lr=2e-3, min_lr=2e-4, warmup=steps // 20, data=data)
print(f"{model.info.params / 1e6:.2f}M parameters, {trainer.bytes / 1e6:.0f} MB for training")

# %% Training is an iterator; Ctrl-C stops it between steps and loses nothing
try:
    for m in trainer:
        if m.step % 20 == 0 or m.step == 1:
            print(f"step {m.step}  loss {m.loss:.3f}  {m.tokens / m.seconds:.0f} tokens/s")
except KeyboardInterrupt:
    print("stopped")
print(f"held-out loss {trainer.eval(held):.3f} nats per token")

# %% Text, a piece at a time
for piece in model.stream("The ", max_tokens=80, temperature=0.8, top_p=0.95, seed=1):
    print(piece, end="", flush=True)
print()

# %% A directory that Hugging Face's libraries open too
model.save("trained-model")
with tilia.Model.open("trained-model") as again:
    assert again.generate("The ", max_tokens=8) == model.generate("The ", max_tokens=8)
