"""Encoding and training against tiktoken and Hugging Face tokenizers: ratios in one run, interleaved, medians.

    python3 bench/tokenizer_peers.py BENCH TILIA DATA [--mb 100] [--rounds 3] [--threads 1,2] [--train-mb 100] [--json FILE]

BENCH: the built bench/tokenizer; TILIA: the program (for training); DATA: a folder with gpt2/vocab.json and merges.txt,
tinyshakespeare.txt and wikitext2-*.txt. Needs a Python with tokenizers and tiktoken. Chinese comes from Debian's
manpages-zh if it is installed or unpacked at --chinese. Everybody gets the same text, repeated to size with words
changed, so that no cache has seen it all; loading vocabularies and files is not timed. CPU time counts on one thread,
wall-clock time on more."""
import argparse, base64, glob, gzip, json, os, random, statistics, subprocess, sys, tempfile, time

a = argparse.ArgumentParser()
a.add_argument("bench"), a.add_argument("tilia"), a.add_argument("data")
a.add_argument("--mb", type=float, default=100), a.add_argument("--rounds", type=int, default=3)
a.add_argument("--threads", default="1,2"), a.add_argument("--train-mb", type=float, default=100)
a.add_argument("--chinese", default="/usr/share/man"), a.add_argument("--json"), a.add_argument("--peer-mb", type=float, default=20)
a.add_argument("--vocab", type=int, default=32000)
o = a.parse_args()
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def alphabet():
    bs = list(range(33, 127)) + list(range(0xa1, 0xad)) + list(range(0xae, 0x100))
    cs, n = bs[:], 0
    for b in range(256):
        if b not in bs:
            bs.append(b), cs.append(256 + n)
            n += 1
    return {chr(c): b for b, c in zip(bs, cs)}


def read(paths, most):
    out, n = [], 0
    for p in paths:
        try:
            b = gzip.open(p).read() if p.endswith(".gz") else open(p, "rb").read()
        except OSError:
            continue
        out.append(b.decode("utf-8", "ignore"))
        n += len(b)
        if n >= most: break
    return "".join(out)


def stretch(text, size, rng):
    """Repeats text to size bytes; every pass changes one letter in about every twelfth word."""
    out, n = [], 0
    words = text.split(" ")
    while n < size:
        w = list(words)
        if n:
            for i in range(rng.randrange(12), len(w), 12):
                if len(w[i]) > 1:
                    k = rng.randrange(len(w[i]))
                    other = w[rng.randrange(len(w))]
                    c = other[0] if other else "e"
                    if c.strip() and w[i][k].strip(): w[i] = w[i][:k] + c + w[i][k + 1:]
        s = " ".join(w)
        out.append(s)
        n += len(s.encode())
    b = "".join(out).encode()[:size]
    return b.decode("utf-8", "ignore")


def corpora():
    most = int(o.mb * 1e6)
    d = o.data
    yield "english", read([d + "/tinyshakespeare.txt"] + sorted(glob.glob(d + "/wikitext2-*.txt")), most)
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    yield "code", read(sorted(glob.glob("/usr/include/**/*.h", recursive=True)) + sorted(glob.glob(here + "/src/**/*.[ch]", recursive=True)), most)
    zh = [p for p in sorted(glob.glob(o.chinese + "/**/*.gz", recursive=True)) if "/zh_CN/" in p]
    if zh: yield "chinese", read(zh, most)


def peers():
    import tiktoken
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    v, u = json.load(open(o.data + "/gpt2/vocab.json")), alphabet()
    ranks = {bytes(u[c] for c in k): i for k, i in v.items() if k != "<|endoftext|>"}
    from tiktoken_ext.openai_public import r50k_pat_str
    tt = tiktoken.Encoding("gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    hf = Tokenizer(models.BPE.from_file(o.data + "/gpt2/vocab.json", o.data + "/gpt2/merges.txt"))
    hf.pre_tokenizer, hf.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tt, hf


def clock(threads):
    return time.process_time() if threads == 1 else time.perf_counter()


def documents(text, size=50000):
    """Pieces of whole lines: what batches are made of; one long string makes the peers slower, not faster."""
    out, part, n = [], [], 0
    for line in text.splitlines(True):
        part.append(line)
        n += len(line)
        if n >= size:
            out.append("".join(part))
            part, n = [], 0
    return out + ["".join(part)]


def encode_all():
    tt, hf = peers()
    rng, rows = random.Random(1), []
    for name, text in corpora():
        text = stretch(text, int(o.mb * 1e6), rng)
        file = tempfile.NamedTemporaryFile("wb", delete=False)
        file.write(text.encode()), file.close()
        small = documents(text.encode()[-int(o.peer_mb * 1e6):].decode("utf-8", "ignore"))  # changed words, as most of it
        small_n = sum(len(s.encode()) for s in small)
        for threads in map(int, o.threads.split(",")):
            t = {"tilia": [], "tiktoken": [], "tokenizers": []}
            for _ in range(o.rounds):
                r = subprocess.run([o.bench, o.data + "/gpt2/vocab.json", file.name, str(threads), "1"], capture_output=True, text=True, check=True)
                r = json.loads(r.stdout)
                t["tilia"].append(r["bytes"] / r["cpu_seconds" if threads == 1 else "seconds"])
                c = clock(threads)
                if threads == 1:
                    for s in small: tt.encode_ordinary(s)
                else: tt.encode_ordinary_batch(small, num_threads=threads)
                t["tiktoken"].append(small_n / (clock(threads) - c))
                few = small[:max(1, len(small) // 5)]
                c = clock(threads)
                if threads == 1:
                    for s in few: hf.encode(s, add_special_tokens=False)
                else: hf.encode_batch(few, add_special_tokens=False)
                t["tokenizers"].append(sum(len(s.encode()) for s in few) / (clock(threads) - c))
            m = {k: statistics.median(x) / 1e6 for k, x in t.items()}
            rows.append({"corpus": name, "threads": threads, **{k + "_mb_s": round(x, 2) for k, x in m.items()},
                         "vs_tiktoken": round(m["tilia"] / m["tiktoken"], 2), "vs_tokenizers": round(m["tilia"] / m["tokenizers"], 2)})
            r = rows[-1]
            print("encode %-8s %d thread(s): tilia %7.1f MB/s, tiktoken %6.1f, tokenizers %5.1f; %.1f x tiktoken, %.1f x tokenizers"
                  % (name, threads, m["tilia"], m["tiktoken"], m["tokenizers"], r["vs_tiktoken"], r["vs_tokenizers"]), flush=True)
        os.unlink(file.name)
    return rows


HF_TRAIN = """
import sys, time
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
t = Tokenizer(models.BPE()); t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
c = time.perf_counter(); cpu = time.process_time()
t.train([sys.argv[1]], trainers.BpeTrainer(vocab_size=int(sys.argv[2]), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
peak = [l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")][0]
print(time.perf_counter() - c, time.process_time() - cpu, peak)
"""


def peak_of(pid):
    """Follows a process to its end; its peak of resident memory in kB (ru_maxrss would count ours before its exec)."""
    peak = 0
    while True:
        try:
            for line in open("/proc/%d/status" % pid):
                if line.startswith("VmHWM"): peak = max(peak, int(line.split()[1]))
        except OSError:
            pass
        done, _, use = os.wait4(pid, os.WNOHANG)
        if done: return peak, use
        time.sleep(0.01)


def train_all():
    rows = []
    for name, text in corpora():
        if name == "code": continue
        file = tempfile.NamedTemporaryFile("wb", delete=False)
        file.write(stretch(text, int(o.train_mb * 1e6), random.Random(2)).encode()), file.close()
        for threads in map(int, o.threads.split(",")):
            env = dict(os.environ, RAYON_NUM_THREADS=str(threads))
            out = tempfile.mktemp(suffix=".json")
            c = time.perf_counter()
            p = subprocess.Popen([o.tilia, "tokenizer", "train", file.name, "--vocab", str(o.vocab), "--out", out, "--threads", str(threads), "--quiet"], stdout=subprocess.DEVNULL)
            rss, use = peak_of(p.pid)
            wall, cpu = time.perf_counter() - c, use.ru_utime + use.ru_stime
            r = subprocess.run([sys.executable, "-c", HF_TRAIN, file.name, str(o.vocab)], env=env, capture_output=True, text=True, check=True)
            hw, hc, hr = map(float, r.stdout.split())
            mine, theirs = (cpu, hc) if threads == 1 else (wall, hw)
            rows.append({"corpus": name, "threads": threads, "tilia_s": round(mine, 2), "tokenizers_s": round(theirs, 2),
                         "speedup": round(theirs / mine, 2), "tilia_mb": round(rss / 1024, 1), "tokenizers_mb": round(hr / 1024, 1),
                         "memory_share": round(rss / hr, 3)})
            print("train %-8s %d thread(s): tilia %.1f s, %.0f MB (with a measuring pass); tokenizers %.1f s, %.0f MB; %.1f x faster, %.0f %% of the memory"
                  % (name, threads, mine, rss / 1024, theirs, hr / 1024, theirs / mine, 100 * rss / hr), flush=True)
            os.unlink(out)
        os.unlink(file.name)
    return rows


result = {}
if o.mb > 0: result["encode"] = encode_all()
if o.train_mb > 0: result["train"] = train_all()
if o.json: json.dump(result, open(o.json, "w"), indent=1)
