#!/usr/bin/env python3
"""Every figure of speed and memory that Tilia is held to, beside its peer in the same run, as one table.

  VENV/bin/python bench/table.py build/tilia [--quick] [--only train,attention] [--publish]

Peers: bench/requirements.txt, in a virtual environment outside the tree; without PyTorch Tilia is measured alone. Every
part is measured interleaved: a round of Tilia, then one of each peer, again and again; figures are medians over the
rounds with their least and most, a ratio is that of the medians. What is measured is kept in --state, so that a run that
was interrupted (Ctrl-C, --minutes) goes on where it stood; --again begins anew. A part that fails is told and left out.

  train      a training step against PyTorch, eager and compiled; its share of the machine's limit; beside the floor that
             `tilia profile --floor` finds
  attention  causal, forward and with backward, 12 heads of 64 and one, against scaled_dot_product_attention
  memory     what a step keeps for its backward pass, by levels of recomputation, against what PyTorch keeps
  decode     a token of GPT-2 124M against plain reads of as many bytes
  overhead   an engine's start, an operator with nothing to do

--publish writes docs/performance.md and the tables of README.md and README.zh-CN.md, unless something is lacking but the
longest parts, which come last: 16384 tokens, and 124M at 4 x 512."""
import argparse, datetime, hashlib, json, os, pathlib, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import table_text  # noqa: E402

LENGTHS = {1024: 5, 4096: 3, 16384: 2}  # tokens: rounds
SIZES = {"char-cpu": (5, 3), "char": (3, 2), "gpt2": (2, 1), "gpt2-4x512": (1, 0)}  # rounds, those with the floor
STEPS = {"char-cpu": 20, "char": 3}  # of a round; else 1
DTYPES = ("f32", "bf16")


# ---- parts: each gives a JSON object ------------------------------------------------------------------------------


def tilia(a, *args):
    out = subprocess.run([a.tilia, *args, "--threads", str(a.threads), "--json", "--quiet"], check=True, capture_output=True,
                         text=True).stdout
    return json.loads(out)


def has_torch():
    import importlib.util
    return importlib.util.find_spec("torch") is not None


def the_torch(a):
    import torch
    torch.set_num_threads(a.threads)
    return torch


def part_overhead(a):
    return {"rounds": [tilia(a, "bench", "overhead")["results"][0] for _ in range(5)]}


def part_decode(a):
    rounds = 1 if a.quick else 5
    return {"rounds": [tilia(a, "bench", "generate", "--preset", "gpt2", "--rounds", "1")["results"] for _ in range(rounds)]}


def part_memory(a):
    found = {"tilia": {d: {level: tilia(a, "plan", "--preset", "gpt2", "--train", "--batch", "1", "--dtype", d,
                                        f"--recompute={level}")["activations_bytes"] for level in table_text.LEVELS} for d in DTYPES}}
    if has_torch():
        import train_peers
        torch = the_torch(a)
        found["torch"] = {d: train_peers.Peer(torch, train_peers.SIZES["gpt2"], False, d == "bf16").saved_bytes() for d in DTYPES}
    return found


def part_attention(a, n):
    import attention_peers
    rounds, torch = [], the_torch(a) if has_torch() else None
    for _ in range(1 if a.quick else LENGTHS[n]):
        for d in DTYPES:
            mine = attention_peers.tilia_seconds(a, n, d)
            for heads in (12, 1):
                (f, share), (b, share_b) = mine[heads, "attention"], mine[heads, "attention_bwd"]
                row = {"dtype": d, "heads": heads, "tilia": [f, f + b], "share": [share, share_b]}
                if torch:
                    row["torch"] = attention_peers.torch_seconds(torch, time.perf_counter, n, heads, getattr(torch, {"f32": "float32"}.get(d, "bfloat16")))
                rounds.append(row)
    return {"rounds": rounds}


def part_train(a, size, dtype):
    import train_peers
    spec, peers, rounds, failed = train_peers.SIZES[size], {}, [], {}
    if has_torch():
        torch = the_torch(a)
        for name in ("eager", "compile"):
            try:
                peers[name] = train_peers.Peer(torch, spec, name == "compile", dtype == "bf16")
                for _ in range(2 if size in STEPS else 1):
                    peers[name].step()
            except Exception as e:  # a compiler that is missing, say
                failed[name] = f"{type(e).__name__}: {str(e).splitlines()[0][:100]}"
                peers.pop(name, None)
    count, floors = STEPS.get(size, 1), []
    most, with_floor = (1, min(1, SIZES[size][1])) if a.quick else SIZES[size]
    shape = ["--preset", spec[0], "--batch", str(spec[1]), "--context", str(spec[2]), "--dtype", dtype]
    for i in range(most):
        r = tilia(a, "bench", "train", *shape, "--steps", str(count))["results"][0]
        row = {"tilia": r["seconds"], "first": r["first_seconds"], "flops": r["flops"], "limit": r["limit_flops"]}
        for name, p in peers.items():
            row[name] = []
            for _ in range(count):
                t = time.perf_counter()
                p.step()
                row[name].append(time.perf_counter() - t)
        rounds.append(row)
        if i < with_floor:
            r = tilia(a, "profile", *shape, "--floor")
            floors.append({k: r[k] for k in ("floor", "least_seconds", "seconds", "floor_products", "floor_mixers", "floor_others")})
    return {"rounds": rounds, "floors": floors, "failed": failed}


def parts_of(a):
    """name: function, in the order of measuring: the long ones last"""
    parts = {"overhead": lambda: part_overhead(a), "memory": lambda: part_memory(a), "decode": lambda: part_decode(a)}
    lengths = [n for n in LENGTHS if not (a.quick and n > 4096)]
    sizes = [s for s in SIZES if not (a.quick and s == "gpt2-4x512")]
    for n in lengths[:2]:
        parts[f"attention {n}"] = lambda n=n: part_attention(a, n)
    for s in sizes[:3]:
        for d in DTYPES:
            parts[f"train {s} {d}"] = lambda s=s, d=d: part_train(a, s, d)
    for n in lengths[2:]:
        parts[f"attention {n}"] = lambda n=n: part_attention(a, n)
    for s in sizes[3:]:
        for d in DTYPES:
            parts[f"train {s} {d}"] = lambda s=s, d=d: part_train(a, s, d)
    return {k: f for k, f in parts.items() if not a.only or k.split()[0] in a.only.split(",")}


# ---- what is known about this run ---------------------------------------------------------------------------------


def version_of(name):
    import importlib.metadata
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def facts(a):
    cpu = [x.split(":")[1].strip() for x in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    digest = hashlib.sha256(pathlib.Path(a.tilia).read_bytes()).hexdigest()
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {"processor": cpu[0] if cpu else "?", "threads": a.threads, "torch": version_of("torch"), "program": digest[:16], "quick": a.quick,
            "commit": commit, "python": ".".join(map(str, sys.version_info[:3])), "date": str(datetime.date.today()),
            "isa": tilia(a, "bench", "overhead")["isa"]}


def same_run(x, y):
    return all(x.get(k) == y.get(k) for k in ("processor", "threads", "torch", "program", "quick", "isa"))


def load(a, now):
    """{part: what was found} of the same program, peers and machine; the last of each counts"""
    found = {}
    try:
        lines = pathlib.Path(a.state).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            r = json.loads(line)
        except ValueError:  # a line that a kill cut off
            continue
        if same_run(r["facts"], now):
            found[r["part"]] = r
    return found


def keep(a, record):
    os.makedirs(os.path.dirname(os.path.abspath(a.state)), exist_ok=True)
    with open(a.state, "a", encoding="utf-8") as f:
        f.write(json.dumps(record) + "\n")


def measure(a, name, now):
    """One part in a process of its own, whose end gives back its memory and whose failure is its own."""
    start = time.time()
    again = [sys.executable, os.path.abspath(__file__), a.tilia, "--part", name, "--threads", str(a.threads), *(["--quick"] if a.quick else [])]
    r = subprocess.run(again, stdout=subprocess.PIPE, text=True, env={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ})
    try:
        data = json.loads(r.stdout) if r.returncode == 0 else None
    except ValueError:
        data = None
    if data is None:
        print(f"{name}: failed (exit status {r.returncode}), left out", file=sys.stderr, flush=True)
        return None
    record = {"part": name, "facts": now, "when": datetime.datetime.now().isoformat(timespec="seconds"), "took": time.time() - start, "data": data}
    keep(a, record)
    for peer, why in data.get("failed", {}).items():
        print(f"{name}: PyTorch, {peer}: {why}", file=sys.stderr)
    return record


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tilia", help="the program: build/tilia")
    ap.add_argument("--quick", action="store_true", help="one round of each, up to 4096 tokens, without 124M at 4 x 512: about five minutes")
    ap.add_argument("--only", help="parts, between commas: train, attention, memory, decode, overhead")
    ap.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    ap.add_argument("--minutes", type=float, default=60, help="begin no part after so many (default 60)")
    ap.add_argument("--state", help="where what was measured is kept (default: figures.jsonl beside the program)")
    ap.add_argument("--again", action="store_true", help="forget what was measured before")
    ap.add_argument("--show", action="store_true", help="measure nothing, print what is known")
    ap.add_argument("--out", help="write the table there, as markdown")
    ap.add_argument("--publish", action="store_true", help="write docs/performance.md and the tables of both READMEs")
    ap.add_argument("--part", help=argparse.SUPPRESS)
    a = ap.parse_args()
    a.tilia, a.clock = os.path.abspath(a.tilia), "wall"
    if not os.access(a.tilia, os.X_OK) or os.path.isdir(a.tilia):
        ap.error(f"{a.tilia}: no program there; build it first: make")
    if a.threads < 1:
        ap.error("--threads is 1 or more")
    known = {"train", "attention", "memory", "decode", "overhead"}
    if a.only and not set(a.only.split(",")) <= known:
        ap.error(f"--only {a.only}: of {', '.join(sorted(known))}")
    if a.part:
        json.dump(parts_of(a)[a.part](), sys.stdout)
        return 0
    a.state = a.state or os.path.join(os.path.dirname(a.tilia), "figures.jsonl")
    now, start = facts(a), time.time()
    if not now["torch"]:
        print("no PyTorch in this Python: Tilia alone (python -m pip install -r bench/requirements.txt)", file=sys.stderr)
    if os.getloadavg()[0] > 0.5 and not a.show:
        print(f"others are at work here (load average {os.getloadavg()[0]:.1f}): even ratios will be off", file=sys.stderr)
    found = {} if a.again else load(a, now)
    todo = [] if a.show else [p for p in parts_of(a) if p not in found]
    stopped = False
    try:
        for i, name in enumerate(todo):
            if time.time() - start > 60 * a.minutes:
                print(f"{a.minutes:g} minutes are over: {len(todo) - i} parts are left to a run to come", file=sys.stderr)
                break
            print(f"[{i + 1}/{len(todo)}, {time.time() - start:.0f} s] {name}", file=sys.stderr, flush=True)
            record = measure(a, name, now)
            if record:
                found[name] = record
    except KeyboardInterrupt:
        stopped = True
        print("interrupted: the same command goes on from here", file=sys.stderr)
    lacking = [p for p in parts_of(a) if p not in found]
    text = table_text.page(found, now)
    print(text)
    if a.out:
        table_text.write(a.out, text)
    if a.publish:
        needed = [p for p in lacking if p.split()[1:2] not in (["16384"], ["gpt2-4x512"])]  # those come last; a page can do without
        if needed or a.only or a.quick or not now["torch"]:
            print("not published: " + (f"{len(needed)} parts are lacking: {', '.join(needed)}" if needed else
                                       "a page needs all kinds of parts, more than one quick round, and PyTorch"), file=sys.stderr)
            return 1
        for path in table_text.publish(os.path.dirname(HERE), found, now):
            print(f"written: {path}", file=sys.stderr)
    return 130 if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
