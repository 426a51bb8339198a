#!/usr/bin/env python3
"""Prompts and tokens of Tilia against llama.cpp: the same GGUF file, interleaved in one run.

  VENV/bin/python bench/llama_peers.py build/tilia --models DIR [--shapes 1b,110m] [--types f16,bf16,q8_0,q4_0]
                                       [--rounds 5] [--threads 2] [--prompt 512] [--steps 24] [--first]
  VENV/bin/python bench/llama_peers.py build/tilia FILE.gguf ...

VENV holds llama-cpp-python built for this machine (pip install --no-binary llama-cpp-python llama-cpp-python). Files
SHAPE-TYPE.gguf that DIR lacks are made there by --make PROGRAM (called PROGRAM out.gguf SHAPE TYPE). Times are medians
over the rounds, (least-most) behind them. "of reads": the weights' bytes a token over the bytes a second that plain
reads of as many bytes reach on the same threads, measured by Tilia in the same rounds. --first: seconds from the start
of `tilia generate` to its end with one word of prompt and one token, file cache warm."""
import argparse, json, os, statistics, subprocess, sys, time


class Llama:
    def __init__(self, path, threads, prompt, steps):
        import llama_cpp as L
        self.L = L
        model = L.llama_model_load_from_file(path.encode(), L.llama_model_default_params())
        p = L.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = prompt + steps + 64, prompt, prompt
        p.n_threads = p.n_threads_batch = threads
        self.model, self.context = model, L.llama_init_from_model(model, p)
        self.vocab = L.llama_n_vocab(L.llama_model_get_vocab(model))

    def close(self):
        self.L.llama_free(self.context)
        self.L.llama_model_free(self.model)

    def run(self, ids):
        L = self.L
        tokens = (L.llama_token * len(ids))(*ids)
        t = time.perf_counter()
        if L.llama_decode(self.context, L.llama_batch_get_one(tokens, len(ids))):
            sys.exit("llama_decode failed")
        L.llama_synchronize(self.context)
        L.llama_get_logits_ith(self.context, -1)
        return time.perf_counter() - t

    def fresh(self):
        self.L.llama_memory_clear(self.L.llama_get_memory(self.context), True)

    def round(self, prompt, steps):
        ids = [(i * 7919 + 3) % self.vocab for i in range(prompt)]
        self.fresh()
        first = self.run(ids)
        self.fresh()
        times = [self.run([ids[i % prompt]]) for i in range(steps + 8)]
        return first, times[8:]


def tilia_round(a, path):
    out = subprocess.run([a.tilia, "bench", "generate", "--model", path, "--threads", str(a.threads), "--prompt", str(a.prompt), "--steps",
                          str(a.steps), "--rounds", "1", "--json", "--quiet"], check=True, capture_output=True, text=True).stdout
    return json.loads(out)["results"][0]


def first_token(a, path):
    t = time.perf_counter()
    subprocess.run([a.tilia, "generate", path, a.word, "-n", "1", "--temperature", "0", "--threads", str(a.threads), "--quiet"], check=True,
                   capture_output=True)
    return time.perf_counter() - t


def cell(times, scale=1e3):
    return f"{scale * statistics.median(times):.2f} ({scale * min(times):.2f}-{scale * max(times):.2f})"


def compare(a, path):
    peer = Llama(path, a.threads, a.prompt, a.steps)
    peer.round(a.prompt, 2)
    ours, theirs, first, reads, weights = ([], []), ([], []), [], [], 0
    for _ in range(a.rounds):
        r = tilia_round(a, path)
        ours[0].extend(r["prompt_seconds"])
        ours[1].extend(r["seconds"])
        reads.append(r["limit_bytes"])
        weights = r["weight_bytes"]
        p, s = peer.round(a.prompt, a.steps)
        theirs[0].append(p)
        theirs[1].extend(s)
    peer.close()  # its threads spin for a while after work: what follows has the machine to itself
    if a.first:
        first = [first_token(a, path) for _ in range(a.rounds + 3)][1:]
    mid = [[statistics.median(x) for x in side] for side in (ours, theirs)]
    name, limit = os.path.basename(path).removesuffix(".gguf"), statistics.median(reads)
    share = weights / mid[0][1] / limit if limit else 0
    print(f"{name:12} prompt  tilia {cell(ours[0]):>28} ms  llama.cpp {cell(theirs[0]):>28} ms  ratio {mid[1][0] / mid[0][0]:5.2f}   "
          f"{a.prompt / mid[0][0]:.0f} and {a.prompt / mid[1][0]:.0f} tokens/s")
    print(f"{name:12} token   tilia {cell(ours[1]):>28} ms  llama.cpp {cell(theirs[1]):>28} ms  ratio {mid[1][1] / mid[0][1]:5.2f}   "
          f"{1 / mid[0][1]:.1f} and {1 / mid[1][1]:.1f} tokens/s; {100 * share:.0f} % of reads ({1e-9 * limit:.1f} GB/s), "
          f"llama.cpp {100 * share * mid[0][1] / mid[1][1]:.0f} %")
    if first:
        print(f"{name:12} first   tilia {cell(first):>28} ms from start to end of one token", flush=True)
    sys.stdout.flush()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("tilia")
    ap.add_argument("files", nargs="*")
    ap.add_argument("--models")
    ap.add_argument("--make")
    ap.add_argument("--shapes", default="1b,110m")
    ap.add_argument("--types", default="f16,bf16,q8_0,q4_0")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--prompt", type=int, default=512)
    ap.add_argument("--steps", type=int, default=24)
    ap.add_argument("--first", action="store_true")
    ap.add_argument("--word", default="t1")
    a = ap.parse_args()
    files = list(a.files)
    for shape in a.shapes.split(",") if a.models else []:
        for t in a.types.split(","):
            path = os.path.join(a.models, f"{shape}-{t}.gguf")
            if not os.path.exists(path):
                if not a.make:
                    sys.exit(f"{path} is not there; --make PROGRAM makes it")
                subprocess.run([a.make, path, shape, t], check=True, stdout=sys.stderr)
            files.append(path)
    if not files:
        ap.error("which files? Give them, or --models DIR")
    import llama_cpp as L
    silent = L.llama_log_callback(lambda level, text, user: None)
    L.llama_log_set(silent, None)
    L.llama_backend_init()
    version = subprocess.run([a.tilia, "--version"], capture_output=True, text=True).stdout.strip().splitlines()
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    print(f"{version[0] if version else 'tilia'}; llama-cpp-python {L.__version__}: {L.llama_print_system_info().decode().strip()}")
    print(f"{cpu}, {a.threads} threads, {a.rounds} rounds, load average {os.getloadavg()[0]:.1f}; milliseconds: median (least-most)", flush=True)
    for path in files:
        compare(a, path)


if __name__ == "__main__":
    main()
