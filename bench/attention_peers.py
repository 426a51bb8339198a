#!/usr/bin/env python3
"""Causal attention of Tilia against PyTorch's scaled_dot_product_attention, interleaved in one run.

  VENV/bin/python bench/attention_peers.py build/tilia [--lengths 1024,4096,16384] [--rounds 3] [--threads 2] [--clock wall|cpu]
                                           [--dtypes f32,bf16] [--quick]
  VENV/bin/python bench/attention_peers.py build/tilia --errors [--lengths 1024,4096] [--dtypes f32,bf16]

12 heads of 64 and one head, batch 1; forward, and forward with backward; f32 and bf16; medians of milliseconds, their
least and most, the ratio of the medians and that of the least. Pairs of tokens are counted causal-exact, 4 D flops forward and 10 D backward each.

--errors measures no time: 2 heads, normal numbers; largest and root mean square error of both in the output and in dq, dk
and dv against the same numbers' attention in float64, over the root mean square of what is right, and ours over PyTorch's.
Exit status 1 if a root mean square error of ours is above twice PyTorch's. Reads libtilia.so beside the program."""
import argparse, datetime, json, os, platform, statistics, subprocess, sys, time

D = 64


def tilia_seconds(a, n, dtype):
    """{(heads, operator): (seconds, share of the limit)} of one run at length n"""
    out = subprocess.run([a.tilia, "bench", "attention", "--context", str(n), "--dtype", dtype, "--threads", str(a.threads),
                          "--clock", a.clock, "--json", "--quiet"], check=True, capture_output=True, text=True).stdout
    found = {}
    for r in json.loads(out)["results"]:
        heads = int(r["shape"].split(", ")[1].split()[0])
        found[heads, r["op"]] = r["seconds"], r["flops"] / r["seconds"] / r["limit_flops"]
    return found


def torch_seconds(torch, now, n, heads, dtype):
    F = torch.nn.functional
    make = lambda: torch.randn(1, heads, n, D, dtype=dtype, requires_grad=True)
    q, k, v = make(), make(), make()
    g = torch.randn(1, heads, n, D, dtype=dtype)
    with torch.no_grad():
        F.scaled_dot_product_attention(q, k, v, is_causal=True)
        t = now()
        F.scaled_dot_product_attention(q, k, v, is_causal=True)
        forward = now() - t
    F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(g)
    t = now()
    F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(g)
    return forward, now() - t


def exact(torch, q, k, v, g):
    """(o, dq, dk, dv) of one head, (n, D) each, in float64"""
    q, k, v, g = (x.double() for x in (q, k, v, g))
    p = (q @ k.T / D**0.5).masked_fill_(torch.ones(len(q), len(k)).triu(1).bool(), -float("inf")).softmax(1)
    o = p @ v
    s = g @ v.T
    s.sub_((g * o).sum(1, keepdim=True)).mul_(p).div_(D**0.5)
    return o, s @ k, s.T @ q, p.T @ g


def errors(a, torch, lengths):
    here = os.path.dirname(os.path.abspath(__file__))
    os.environ.setdefault("TILIA_LIBRARY", os.path.join(os.path.dirname(os.path.abspath(a.tilia)), "libtilia.so"))
    sys.path.insert(0, os.path.join(here, os.pardir, "bindings", "python", "src"))
    import tilia.ops as ops
    plain = lambda x: (torch.from_dlpack(x) if not isinstance(x, torch.Tensor) else x).double()
    wrong = 0
    print(f"PyTorch {torch.__version__}; errors over the root mean square of what is right: largest, root mean square")
    print(f"{'dtype':5} {'tokens':>7} {'of':6} {'tilia':>21} {'torch':>21} {'ratio':>13}")
    for name in a.dtypes.split(","):
        dtype = torch.float32 if name == "f32" else torch.bfloat16
        for n in lengths:
            torch.manual_seed(n)
            q, k, v, g = (torch.randn(1, n, 2, D).to(dtype) for _ in range(4))
            want = [torch.stack(x, 1)[None] for x in zip(*(exact(torch, *(x[0, :, h] for x in (q, k, v, g))) for h in (0, 1)))]
            t = [x.transpose(1, 2).detach().clone().requires_grad_() for x in (q, k, v)]
            o = torch.nn.functional.scaled_dot_product_attention(*t, is_causal=True)
            o.backward(g.transpose(1, 2))
            theirs = [x.transpose(1, 2) for x in (o.detach(), *(x.grad for x in t))]
            mine, lse = ops.attention(q, k, v, causal=True, return_lse=True)
            ours = [mine, *ops.attention_backward(g, q, k, v, mine, lse, causal=True)]
            for what, x, y, z in zip(("output", "dq", "dk", "dv"), ours, theirs, want):
                size = z.square().mean().sqrt()
                e = [((plain(w) - z) / size) for w in (x, y)]
                most, mean = [w.abs().max().item() for w in e], [w.square().mean().sqrt().item() for w in e]
                wrong += mean[0] > 2 * mean[1]
                print(f"{name:5} {n:7} {what:6} {most[0]:10.2e} {mean[0]:10.2e} {most[1]:10.2e} {mean[1]:10.2e} {most[0] / most[1]:6.2f} {mean[0] / mean[1]:6.2f}")
    sys.exit(1 if wrong else 0)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tilia")
    ap.add_argument("--lengths", default="1024,4096,16384", help="tokens")
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    ap.add_argument("--dtypes", default="f32,bf16")
    ap.add_argument("--quick", action="store_true", help="one round, 1024 and 4096 tokens")
    ap.add_argument("--errors", action="store_true", help="errors against float64 in place of times")
    a = ap.parse_args()
    if a.errors and a.lengths == ap.get_default("lengths"):
        a.lengths = "1024,4096"
    if a.quick:
        a.rounds, a.lengths = 1, "1024,4096"
    lengths = [int(x) for x in a.lengths.split(",") if x.isdigit()]
    if not lengths or min(lengths) < 1:
        ap.error(f"--lengths {a.lengths}: numbers of tokens, between commas")
    if not set(a.dtypes.split(",")) <= {"f32", "bf16"}:
        ap.error(f"--dtypes {a.dtypes}: of f32, bf16")
    if a.rounds < 1 or a.threads < 1:
        ap.error("--rounds and --threads are 1 or more")
    import torch
    torch.set_num_threads(a.threads)
    if a.errors:
        errors(a, torch, lengths)
    now = time.perf_counter if a.clock == "wall" else lambda: time.process_time() / a.threads
    shapes = [(n, heads) for n in lengths for heads in (12, 1)]
    cpu = [x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")] or [platform.machine()]
    print(f"{cpu[0]}, {datetime.date.today()}; PyTorch {torch.__version__}, {a.threads} threads, {a.clock} clock, load average {os.getloadavg()[0]:.1f}; milliseconds: median (least-most)")
    print(f"{'dtype':5} {'tokens':>7} {'heads':>5} {'work':10} {'tilia':>26} {'torch':>26} {'ratio':>6} {'least':>6}")
    for name in a.dtypes.split(","):
        times = {}
        for _ in range(a.rounds):
            mine = {(n, *k): v for n in lengths for k, v in tilia_seconds(a, n, name).items()}
            for n, heads in shapes:
                forward, both = torch_seconds(torch, now, n, heads, torch.float32 if name == "f32" else torch.bfloat16)
                f, b = mine[n, heads, "attention"][0], mine[n, heads, "attention_bwd"][0]
                for work, x, y in (("forward", f, forward), ("both", f + b, both)):
                    t = times.setdefault((n, heads, work), ([], []))
                    t[0].append(1e3 * x)
                    t[1].append(1e3 * y)
        for (n, heads, work), t in times.items():
            mid = [statistics.median(x) for x in t]
            cell = [f"{m:.2f} ({min(x):.2f}-{max(x):.2f})" for m, x in zip(mid, t)]
            print(f"{name:5} {n:7} {heads:5} {work:10} {cell[0]:>26} {cell[1]:>26} {mid[1] / mid[0]:6.2f} {min(t[1]) / min(t[0]):6.2f}", flush=True)


if __name__ == "__main__":
    main()
