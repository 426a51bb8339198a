#!/usr/bin/env python3
"""Training steps of Tilia against PyTorch, interleaved in one run: medians, spread, ratios.

  VENV/bin/python bench/train_peers.py build/tilia [--sizes char-cpu,char,gpt2] [--rounds 5] [--threads 2]
                                       [--clock wall|cpu] [--variants eager,compile] [--dtypes f32,bf16]

PyTorch is given its best: scaled_dot_product_attention, the fused AdamW, gradients set to None, eager and compiled,
f32 and bf16 autocast, the better of eager and compiled counts. The model is the one that Tilia's preset names, the step the same: forward,
backward, clipping at 1, AdamW. --clock cpu with one thread counts each program's own processor time, which other work
on the machine disturbs less than the wall's."""
import argparse, json, math, os, statistics, subprocess, sys, time

SIZES = {  # name: preset, rows, context, layers, heads, width, vocabulary, bias, dropout, exact GELU
    "char-cpu": ("char-cpu", 12, 64, 4, 4, 128, 65, False, 0.0, "none"),
    "char": ("char", 16, 256, 6, 6, 384, 65, False, 0.2, "none"),
    "gpt2": ("gpt2", 1, 1024, 12, 12, 768, 50257, True, 0.0, "tanh"),
    "gpt2-4x512": ("gpt2", 4, 512, 12, 12, 768, 50257, True, 0.0, "tanh"),
}


def model_class(torch):
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, width, heads, bias, drop, gelu):
            super().__init__()
            self.heads, self.gelu, self.drop = heads, gelu, drop
            self.n1, self.n2 = nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias)
            self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
            self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

        def forward(self, x):
            B, T, C = x.shape
            q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2)
                       for t in self.qkv(self.n1(x)).split(C, dim=2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + F.dropout(self.out(y.transpose(1, 2).reshape(B, T, C)), self.drop)
            return x + F.dropout(self.down(F.gelu(self.up(self.n2(x)), approximate=self.gelu)), self.drop)

    class Model(nn.Module):
        def __init__(self, context, layers, heads, width, vocab, bias, drop, gelu):
            super().__init__()
            self.drop = drop
            self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(context, width)
            self.blocks = nn.ModuleList(Block(width, heads, bias, drop, gelu) for _ in range(layers))
            self.norm = nn.LayerNorm(width, bias=bias)
            for p in self.parameters():
                if p.dim() > 1:
                    nn.init.normal_(p, std=0.02)

        def forward(self, ids, targets):
            x = F.dropout(self.wte(ids) + self.wpe.weight[: ids.shape[1]], self.drop)
            for b in self.blocks:
                x = b(x)
            z = F.linear(self.norm(x), self.wte.weight)
            return F.cross_entropy(z.view(-1, z.shape[-1]), targets.view(-1))

    return Model


class Peer:
    def __init__(self, torch, spec, compiled, bf16):
        _, self.rows, self.context, layers, heads, width, vocab, bias, drop, gelu = spec
        self.torch, self.bf16, self.vocab = torch, bf16, vocab
        torch.manual_seed(1)
        self.model = model_class(torch)(self.context, layers, heads, width, vocab, bias, drop, gelu)
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() <= 1]
        self.optim = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
                                       lr=1e-4, betas=(0.9, 0.95), fused=True)
        self.forward = torch.compile(self.model) if compiled else self.model
        ids = torch.randint(0, vocab, (self.rows, self.context + 1))
        self.x, self.y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def step(self):
        torch = self.torch
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.forward(self.x, self.y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optim.step()
        self.optim.zero_grad(set_to_none=True)
        return loss.item()


def tilia_times(a, spec, dtype, steps):
    preset, rows, context = spec[:3]
    out = subprocess.run([a.tilia, "bench", "train", "--preset", preset, "--batch", str(rows), "--context", str(context), "--dtype", dtype,
                          "--steps", str(steps), "--threads", str(a.threads), "--clock", a.clock, "--json"],
                         check=True, capture_output=True, text=True).stdout
    return [1e3 * s for s in json.loads(out)["seconds"]]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tilia")
    ap.add_argument("--sizes", default="char-cpu,char,gpt2,gpt2-4x512")
    ap.add_argument("--dtypes", default="f32,bf16")
    ap.add_argument("--variants", default="eager,compile")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    a = ap.parse_args()
    import torch
    torch.set_num_threads(a.threads)
    now = time.perf_counter if a.clock == "wall" else time.process_time
    print(f"PyTorch {torch.__version__}, {a.threads} threads, {a.clock} clock, load average {os.getloadavg()[0]:.1f}; milliseconds a step: median (least-most)")
    print(f"{'size':12} {'dtype':5} {'tilia':>26} {'torch eager':>26} {'torch compiled':>26} {'ratio to best':>14}")
    for size in a.sizes.split(","):
        spec = SIZES[size]
        count = {"char-cpu": 20, "char": 3}.get(size, 1)  # steps a round
        for dtype in a.dtypes.split(","):
            peers = {}
            for name in a.variants.split(","):
                try:
                    p = Peer(torch, spec, name == "compile", dtype == "bf16")
                    for _ in range(3):
                        p.step()
                    peers[name] = p
                except Exception as e:  # a compiler that is missing, say
                    print(f"# {name}: {type(e).__name__}: {str(e).splitlines()[0][:100]}", file=sys.stderr)
            times = {name: [] for name in ["tilia", *peers]}
            for _ in range(a.rounds):
                times["tilia"] += tilia_times(a, spec, dtype, count)
                for name, p in peers.items():
                    for _ in range(count):
                        t = now()
                        p.step()
                        times[name].append(1e3 * (now() - t))
            mid = {k: statistics.median(v) for k, v in times.items()}
            cell = lambda k: f"{mid[k]:.1f} ({min(times[k]):.1f}-{max(times[k]):.1f})" if k in mid else "-"
            best = min((mid[k] for k in peers), default=math.nan)
            print(f"{size:12} {dtype:5} {cell('tilia'):>26} {cell('eager'):>26} {cell('compile'):>26} {best / mid['tilia']:14.2f}", flush=True)
            del peers


if __name__ == "__main__":
    main()
