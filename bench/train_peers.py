#!/usr/bin/env python3
"""Training steps of Tilia against PyTorch, interleaved in one run: medians, spread, ratios.

  VENV/bin/python bench/train_peers.py build/tilia [--sizes char-cpu,char,gpt2] [--rounds 5] [--threads 2]
                                       [--clock wall|cpu] [--variants eager,compile] [--dtypes f32,bf16] [--quick]

PyTorch is given its best: scaled_dot_product_attention, the fused AdamW, gradients set to None, eager and compiled,
f32 and bf16 autocast, the better of eager and compiled counts, large pages for its memory. The model is the one that
Tilia's preset names, the step the same: forward, backward, clipping at 1, AdamW. The ratio compares within a
number type; a further line compares the fastest of each program. "of limit" is the step's FLOP/s, attention counted
causal-exact, as a share of the multiply-adds measured in the same run. "MB" are Tilia's activations with all scratch
memory, "torch MB" what PyTorch's eager forward pass keeps for the backward one, without what both passes need besides.
--clock cpu with one thread counts each program's own processor time, which other work on the machine disturbs less than
the wall's. --quick: one round, so that a size fits into a minute."""
import argparse, datetime, json, math, os, platform, statistics, subprocess, sys, time

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

    def saved_bytes(self):
        """What the forward pass keeps for the backward one, parameters apart: every storage once."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept = {}

        def pack(t):
            s = t.untyped_storage()
            if s.data_ptr() not in own:
                kept[s.data_ptr()] = (s.nbytes(), t)  # held, so that no address comes back
            return t

        with self.torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            with self.torch.autocast("cpu", dtype=self.torch.bfloat16, enabled=self.bf16):
                loss = self.model(self.x, self.y)
        del loss
        return sum(n for n, _ in kept.values())


def tilia_times(a, spec, dtype, steps, facts):
    preset, rows, context = spec[:3]
    out = subprocess.run([a.tilia, "bench", "train", "--preset", preset, "--batch", str(rows), "--context", str(context), "--dtype", dtype,
                          "--steps", str(steps), "--threads", str(a.threads), "--clock", a.clock, "--json", "--quiet"],
                         check=True, capture_output=True, text=True).stdout
    r = json.loads(out)["results"][0]
    facts.update(flops=r["flops"], limit=max(r["limit_flops"], facts.get("limit", 0)), activations=r["activation_bytes"])
    return [1e3 * s for s in r["seconds"]]


def processor():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def row(a, size, dtype, times, facts):
    """Prints one line; times: program -> milliseconds of each step. Gives Tilia's median and the peer's best."""
    mid = {k: statistics.median(v) for k, v in times.items()}
    cell = lambda k: f"{mid[k]:.1f} ({min(times[k]):.1f}-{max(times[k]):.1f})" if k in times else "-"
    best, mine = min((m for k, m in mid.items() if k != "tilia"), default=math.nan), mid["tilia"]
    limit = facts["limit"] * (1 if a.clock == "wall" else a.threads)
    share = facts["flops"] / (mine * 1e-3) / limit if limit else math.nan
    print(f"{size:10} {dtype:5} {cell('tilia'):>24} {cell('eager'):>24} {cell('compile'):>24} {best / mine:6.2f} {100 * share:7.0f} % "
          f"{facts['activations'] / 1e6:8.1f} {facts.get('saved', math.nan) / 1e6:8.1f}", flush=True)
    return mine, best


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tilia")
    ap.add_argument("--sizes", default="char-cpu,char,gpt2,gpt2-4x512")
    ap.add_argument("--dtypes", default="f32,bf16")
    ap.add_argument("--variants", default="eager,compile")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    ap.add_argument("--quick", action="store_true", help="one round")
    a = ap.parse_args()
    if "GLIBC_TUNABLES" not in os.environ:  # large pages, where the system gives them to those who ask
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if a.quick:
        a.rounds = 1
    import torch
    torch.set_num_threads(a.threads)
    now = time.perf_counter if a.clock == "wall" else time.process_time
    print(f"{processor()}, {datetime.date.today()}; PyTorch {torch.__version__}, {a.threads} threads, {a.clock} clock, "
          f"load average {os.getloadavg()[0]:.1f}; milliseconds a step: median (least-most)")
    print(f"{'size':10} {'dtype':5} {'tilia':>24} {'torch eager':>24} {'torch compiled':>24} {'ratio':>6} {'of limit':>9} "
          f"{'MB':>8} {'torch MB':>8}")
    for size in a.sizes.split(","):
        spec, best = SIZES[size], {}
        count = {"char-cpu": 20, "char": 3}.get(size, 1)  # steps a round
        for dtype in a.dtypes.split(","):
            peers, facts = {}, {}
            for name in [v for v in a.variants.split(",") if v]:
                try:
                    p = Peer(torch, spec, name == "compile", dtype == "bf16")
                    for _ in range(2 if count > 1 else 1):
                        p.step()
                    peers[name] = p
                    if name == "eager":
                        facts["saved"] = p.saved_bytes()
                except Exception as e:  # a compiler that is missing, say
                    print(f"# {name}: {type(e).__name__}: {str(e).splitlines()[0][:100]}", file=sys.stderr)
            times = {name: [] for name in ["tilia", *peers]}
            for _ in range(a.rounds):
                times["tilia"] += tilia_times(a, spec, dtype, count, facts)
                for name, p in peers.items():
                    for _ in range(count):
                        t = now()
                        p.step()
                        times[name].append(1e3 * (now() - t))
            best[dtype] = row(a, size, dtype, times, facts)
            del peers
        if len(best) > 1:
            mine, theirs = (min((x[i], d) for d, x in best.items()) for i in (0, 1))
            print(f"{size:10} best of all: tilia {mine[1]} {mine[0]:.1f}, torch {theirs[1]} {theirs[0]:.1f}, ratio {theirs[0] / mine[0]:.2f}",
                  flush=True)


if __name__ == "__main__":
    main()
