"""What the Python package must show, in one command:

    python bench.py [--tilia build/tilia] [--other PYTHON] [--steps N]

agreement with PyTorch's vectors; seconds of a call; training through Python against the program (--tilia); memory over
10,000 calls; how fast Ctrl-C comes out; and, with --other, a wheel built here that installs and passes on another Python.
Exit status 1 if something is not as promised. TILIA_LIBRARY names the library unless the package is installed; NumPy and
pytest are needed, and pip for --other."""

import argparse
import gc
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit

HERE = os.path.dirname(os.path.abspath(__file__))
if "TILIA_LIBRARY" in os.environ:
    sys.path.insert(0, os.path.join(HERE, "src"))

import numpy as np  # noqa: E402

import tilia  # noqa: E402
import tilia.ops as ops  # noqa: E402

failed = []


def show(what, value, good):
    print(f"{'ok  ' if good else 'FAIL'} {what:58} {value}")
    if not good:
        failed.append(what)


def best(f, n, repeat=20):
    f()
    return min(timeit.repeat(f, number=n, repeat=repeat)) / n * 1e6


# ---- agreement --------------------------------------------------------------------------------------------------


def agreement():
    sys.path.insert(0, os.path.join(HERE, "tests"))
    import test_vectors as t

    worst = {"forward": 0.0, "gradient": 0.0, "other": 0.0}

    def close(got, want, tolerance):
        got, want = np.asarray(got), np.asarray(want)
        d = abs(np.where(got == want, 0, got.astype("f8") - want)).max() / max(1.0, abs(want[np.isfinite(want)]).max())
        kind = {t.FORWARD: "forward", t.GRADIENT: "gradient"}.get(tolerance, "other")
        worst[kind] = max(worst[kind], float(d))

    strict, t.close = t.close, close
    for case, f, names in t.test_rows.pytestmark[0].args[1]:
        t.test_rows(case, f, names)
    for case in ("full", "causal", "window", "any"):
        t.test_attention(case, "bthd")
        t.test_attention(case, "bhtd")
    for f in (t.test_embedding, t.test_rope, t.test_multi_head_attention, t.test_gau_and_flash, t.test_cross_entropy,
              t.test_linear_cross_entropy, t.test_clip_grad_norm):  # fmt: skip
        f()
    show("worst difference to PyTorch, forward (relative above 1)", f"{worst['forward']:.1e}", worst["forward"] < 1e-6)
    show("worst difference to PyTorch, gradients (the same)", f"{worst['gradient']:.1e}", worst["gradient"] < 1e-5)
    worst["other"] = 0.0
    t.test_schedule_and_1000_steps_of_adamw()
    show("1000 steps of AdamW on a cosine with warm-up", f"{worst['other']:.1e}", worst["other"] < 1e-4)
    t.close = strict


# ---- calls -----------------------------------------------------------------------------------------------------------


def overhead():
    z, w = np.ones(64, "f4"), np.ones((8, 64), "f4")
    q = np.ones((1, 1, 1, 8), "f4")
    o, lse = ops.attention(q, q, q, return_lse=True)
    out = np.empty_like(z)
    for name, f in (("silu", lambda: ops.silu(z)), ("rmsnorm", lambda: ops.rmsnorm(z, z)),
                    ("add", lambda: ops.add(z, z)), ("linear", lambda: ops.linear(z, w)),
                    ("silu, out=", lambda: ops.silu(z, out=out)),
                    ("attention", lambda: ops.attention(q, q, q)),
                    ("attention_backward", lambda: ops.attention_backward(o, q, q, q, o, lse)),
                    ("attention with its log-sum-exp", lambda: ops.attention(q, q, q, causal=True, return_lse=True)), ("softmax", lambda: ops.softmax(z))):  # fmt: skip
        us = best(f, 500)
        show(f"one call of {name}", f"{us:.1f} us", us < 20)
    for name, f in (("rmsnorm.vjp", lambda: ops.rmsnorm.vjp(z, z, z)),):
        print(f"     one call of {name:46} {best(f, 200):.1f} us")


def leaks(calls=10_000):
    x, w, q = np.ones((16, 32), "f4"), np.ones(32, "f4"), np.ones((1, 16, 2, 16), "f4")

    def use(n):
        for i in range(n):
            ops.rmsnorm(x, w)
            ops.rmsnorm.vjp(x, x, w)
            ops.attention(q, q, q, causal=True)
            ops.silu(np.ones((1 + i % 700, 4), "f4"))

    def rss():
        gc.collect()
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * resource.getpagesize()

    use(1500)
    before = rss()
    use(calls // 4)
    grown = rss() - before
    show(f"memory grown over {calls} calls", f"{grown / 1024:.0f} kB", grown < 2 << 20)


def interrupt():
    m = tilia.Model.create("preset:tiny", seed=1)
    s = m.session(context=100_000, ignore_eos=True).feed("x")
    sent, times = [], []

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.5, send)
    timer.start()
    try:
        for _ in s:
            times.append(time.perf_counter())
    except KeyboardInterrupt:
        out = time.perf_counter() - sent[0]
        after = sum(t > sent[0] for t in times)
        show("KeyboardInterrupt during a generation", f"{out * 1e3:.2f} ms, {after} tokens later", after <= 1)


# ---- training ---------------------------------------------------------------------------------------------------------


def training(program, steps):
    text = ("Words that stand in a row, again and again, and other ones between. " * 3000)[:150_000]
    settings = dict(steps=steps, rows=8, context=256)

    def by_python():
        m = tilia.Model.create("preset:demo", seed=1)
        t = tilia.Trainer(m, lr=1e-3, **settings).add_text(text)
        t.step()
        begin = time.perf_counter()
        inside = [x.seconds for x in t]
        return time.perf_counter() - begin, inside

    wall, inside = by_python()
    share = 100 * (wall - sum(inside)) / wall
    show("of training's time, spent in Python", f"{share:.3f} %", share < 3)
    if not program:
        print("     (--tilia PROGRAM compares with tilia train)")
        return
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "text.txt")
        with open(path, "w") as f:
            f.write(text)
        mine, theirs = [], []
        for k in range(4):  # in turn, so that what else runs here meets both
            mine += [1e3 * s for s in by_python()[1]]
            run = os.path.join(d, f"run{k}")
            subprocess.run([program, "train", path, "--preset", "demo", "--tokenizer", "bytes", "--steps", str(steps),
                            "--batch", str(8 * 256), "--context", "256", "--eval-every", "0", "--save-every",
                            str(steps), "--out", run, "--quiet"], check=True, stdout=subprocess.DEVNULL)  # fmt: skip
            with open(os.path.join(run, "metrics.jsonl")) as f:
                theirs += [json.loads(line)["ms"] for line in f][1:]
        a, b = min(mine), min(theirs)
        c, d2 = statistics.median(mine), statistics.median(theirs)
        # on a machine that does other things too, one of the two tells
        show("a step, Python against the program: fastest; median", f"{a:.1f}, {b:.1f}; {c:.1f}, {d2:.1f} ms",
             a < 1.03 * b or c < 1.03 * d2)  # fmt: skip


# ---- wheel -----------------------------------------------------------------------------------------------------------


def wheel(other):
    with tempfile.TemporaryDirectory() as d:
        quiet = dict(check=True, stdout=subprocess.DEVNULL)
        subprocess.run([sys.executable, "-m", "pip", "wheel", HERE, "-w", d, "--no-deps", "-q"], **quiet)
        name = [n for n in os.listdir(d) if n.endswith(".whl")][0]
        subprocess.run([other, "-m", "venv", os.path.join(d, "v")], **quiet)
        python = os.path.join(d, "v", "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-q", os.path.join(d, name), "numpy", "pytest"], **quiet)
        env = {k: v for k, v in os.environ.items() if k not in ("TILIA_LIBRARY", "PYTHONPATH")}
        code = subprocess.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", os.path.join(HERE, "tests")],
                              cwd=d, env=env, stdout=subprocess.DEVNULL).returncode  # fmt: skip
        version = subprocess.run([python, "-V"], capture_output=True, text=True).stdout.strip()
        show(f"{name} on {version}", "passes" if code == 0 else "fails", code == 0)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tilia", help="the program, for comparing speeds of training")
    p.add_argument("--other", help="another Python, for the wheel")
    p.add_argument("--steps", type=int, default=20, help="of each training run")
    o = p.parse_args()
    print(f"tilia {tilia.__version__}, {tilia.default_engine()}, Python {sys.version.split()[0]}, NumPy {np.__version__}")
    agreement()
    overhead()
    leaks()
    interrupt()
    training(o.tilia, o.steps)
    if o.other:
        wheel(o.other)
    print("all as promised" if not failed else f"not as promised: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
