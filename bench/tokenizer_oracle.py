"""Ids against Hugging Face tokenizers, tiktoken and SentencePiece: every difference is printed, the exit code tells.

    python3 bench/tokenizer_oracle.py BUILD DATA [--real DIR] [--strings 10000] [--seed 1] [--only NAME,NAME] [--quick]

BUILD: where tilia and bench/tokenizer_ids were built; DATA: a folder with gpt2/, vocab/, tinyshakespeare.txt and
wikitext2-*.txt; DIR: vocabularies in the wild, as tools/real_tokenizers fetches them. Needs a Python with tokenizers,
tiktoken and sentencepiece (with its protobuf module).

The strings: fuzzed ones (words of many scripts, contractions, digits, runs of white space, punctuation, all planes of
Unicode, random bytes read as UTF-8 with U+FFFD for what is none, special tokens and halves of them), the corpora whole,
every assigned and unassigned code point in one text, and texts of a megabyte without a space. Each is also encoded in
parts of a stream, and decoded again."""
import argparse, base64, functools, json, os, random, struct, subprocess, sys, tempfile, time

a = argparse.ArgumentParser()
a.add_argument("build"), a.add_argument("data"), a.add_argument("--real"), a.add_argument("--only"), a.add_argument("--write", help="writes --strings fuzzed strings with the others' answers to this folder, compares nothing")
a.add_argument("--quick", action="store_true", help="without the texts of a megabyte"), a.add_argument("--strings", type=int, default=10000), a.add_argument("--seed", type=int, default=1)
o = a.parse_args()
R = random.Random(o.seed)
TMP = tempfile.mkdtemp()

# ---- strings ------------------------------------------------------------------------------------

WORDS = ("the of and to in is that it was for The AND iPhone McDonald HTTPServer straße Ångström naïve café façade "
         "привет мир Ελλάδα שלום مرحبا नमस्ते สวัสดี こんにちは カタカナ 中文分词器 漢字 한국어 조선말 ქართული አማርኛ Ǆuro ǅungla "
         "l'homme d'Artagnan don't DON'T we'll they're I'm he'd it's 'twas y'all've rock'n'roll don’t x_y_z __init__ "
         "foo.bar(baz)[0]; i++ != ==> </div> {\"k\": 1e-5} https://a.b/c?d=e&f #include <a> $x @y %z ~/ \\n 3.14 1,000,000 "
         "12345678901234567890 ٣٤٥ ४५६ Ⅷ ½ ² 0x1F 🙂 👩‍👩‍👧‍👦 🇨🇳 e\u0301 A\u030a ﬁ ſ K \u1e9b\u0323 ﷺ ꙮ 𝔘𝔫𝔦 𠀀𠀁 𐐷").split(" ")
BLANKS = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n ", "\u00a0", "\u3000", "\u2003", "\u2028", "\u0085", "\u200b", "\ufeff", "\v\f"]
SPECIAL = ["<|endoftext|>", "<|endof", "text|>", "<|im_start|>", "<s>", "</s>", "<unk>", "<0x41>", "▁", "[INST]", "<|eot_id|>"]


def point():
    while True:
        c = R.choice([R.randrange(0x80), R.randrange(0x80, 0x800), R.randrange(0x800, 0x10000), R.randrange(0x10000, 0x110000),
                      R.randrange(0x4e00, 0xa000), R.randrange(0xac00, 0xd7a4), R.randrange(0x300, 0x370), R.randrange(0x1f300, 0x1fb00)])
        if not 0xd800 <= c < 0xe000: return chr(c)


def fuzzed():
    kind, n = R.random(), R.choice([1, 2, 3, 5, 8, 13, 21, 34, 55])
    if kind < 0.15: return "".join(point() for _ in range(n))
    if kind < 0.30: return bytes(R.randrange(256) for _ in range(n)).decode("utf-8", "replace")
    if kind < 0.40: return "".join(R.choice("aAbB'sStTlLdDmMrReEvV \n1.") for _ in range(n))
    if kind < 0.45: return "".join(R.choice(BLANKS) for _ in range(n)) + R.choice(["", "x", "\n", "1"])
    if kind < 0.50: return R.choice(WORDS + BLANKS) * n
    out = []
    for _ in range(n):
        out.append(R.choice(WORDS))
        k = R.random()
        if k < 0.7: out.append(R.choice(BLANKS))
        elif k < 0.8: out.append(R.choice(".,;:!?-/'\"()*&^%$#@~`|\\<>=+_"))
        elif k < 0.85: out.append(point())
        elif k < 0.87: out.append(R.choice(SPECIAL))
    return "".join(out)


def read(name):
    return open(o.data + "/" + name, encoding="utf-8", newline="").read()


def planes():
    return "".join(chr(c) + (" " if c % 7 == 0 else "") for c in range(0x110000) if not 0xd800 <= c < 0xe000)


def strings():
    yield "empty", ""
    for i in range(o.strings): yield "fuzzed %d" % i, fuzzed()
    for name in ("gpt-2", "llama-spm"):
        for i, s in enumerate(read("vocab/ggml-vocab-%s.gguf.inp" % name).split("\n__ggml_vocab_test__\n")): yield "%s.inp %d" % (name, i), s
    if o.quick: return
    for name in ("tinyshakespeare.txt", "wikitext2-valid.txt", "wikitext2-test.txt"): yield name, read(name)
    yield "all planes", planes()
    yield "a megabyte of random bytes", R.randbytes(1 << 20).decode("utf-8", "replace")
    yield "a megabyte of one letter", "a" * (1 << 20)
    yield "a megabyte of letters", "".join(R.choice("etaoinshrdlucmfwypvbgkqjxz") for _ in range(1 << 20))
    yield "a megabyte of words without blanks", (read("tinyshakespeare.txt").replace(" ", "").replace("\n", ""))[:1 << 20]
    yield "a megabyte of Chinese", "".join(chr(R.randrange(0x4e00, 0x9fa6)) for _ in range((1 << 20) // 3))
    yield "a megabyte of digits and signs", "".join(R.choice("0123456789+-*/=().,") for _ in range(1 << 20))
    yield "a megabyte of blanks", " " * (1 << 20)


# ---- ours ---------------------------------------------------------------------------------------


def ours(path, texts, flags):
    with tempfile.TemporaryFile() as f:
        for t in texts: f.write(struct.pack("<II", flags, len(t)) + t)
        f.seek(0)
        r = subprocess.run([o.build + "/bench/tokenizer_ids", path], stdin=f, stdout=subprocess.PIPE)
    b, at, out = r.stdout, 0, []
    while at < len(b):
        n, = struct.unpack_from("<I", b, at)
        ids = list(struct.unpack_from("<%di" % n, b, at + 4))
        at += 4 + 4 * n
        spans = struct.unpack_from("<%dQ" % (2 * n), b, at)
        at += 16 * n
        m, = struct.unpack_from("<Q", b, at)
        out.append((ids, list(zip(spans[::2], spans[1::2])), b[at + 8:at + 8 + m]))
        at += 8 + m
    if r.returncode: print("tokenizer_ids ended with %d on text %d: %r" % (r.returncode, len(out), texts[len(out)][:200]))
    return out


def tilia(*args):
    subprocess.run([o.build + "/tilia", *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# ---- the others ---------------------------------------------------------------------------------


def byte_spans(text, offsets):
    """Characters to bytes."""
    if len(text) == len(text.encode()): return offsets
    at = [0]
    for c in text: at.append(at[-1] + len(c.encode()))
    return [(at[x], at[y]) for x, y in offsets]


def hf(t):
    def ask(s):
        e = t.encode(s, add_special_tokens=False)
        return e.ids, byte_spans(s, e.offsets)
    return ask


def hf_file(path):
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(path)
    t.no_truncation(), t.no_padding()
    return hf(t)


def gpt2_hf():
    from tokenizers import Tokenizer, models, pre_tokenizers
    t = Tokenizer(models.BPE.from_file(o.data + "/gpt2/vocab.json", o.data + "/gpt2/merges.txt"))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.add_special_tokens(["<|endoftext|>"])
    return hf(t)


def gpt2_ranks():
    bs = list(range(33, 127)) + list(range(0xa1, 0xad)) + list(range(0xae, 0x100))
    u, n = {chr(b): b for b in bs}, 0
    for b in range(256):
        if b not in bs:
            u[chr(256 + n)] = b
            n += 1
    return {bytes(u[c] for c in k): i for k, i in json.load(open(o.data + "/gpt2/vocab.json")).items() if k != "<|endoftext|>"}


def tt(name, pattern, ranks, special, parse):
    import tiktoken
    e = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
    return lambda s: ((e.encode(s, allowed_special="all", disallowed_special=()) if parse else e.encode_ordinary(s)), None)


def tt_known(name, path, parse=True):
    """As tiktoken builds it, but from the file here."""
    from tiktoken_ext import openai_public as p
    keep, p.load_tiktoken_bpe = p.load_tiktoken_bpe, lambda *_, **__: ranks_of(path)
    k = getattr(p, name)()
    p.load_tiktoken_bpe = keep
    return tt(name, k["pat_str"], k["mergeable_ranks"], k["special_tokens"], parse)


def ranks_of(path):
    return {base64.b64decode(l.split()[0]): int(l.split()[1]) for l in open(path, "rb") if l.strip()}


def sp(proto):
    import sentencepiece
    p = sentencepiece.SentencePieceProcessor()
    p.LoadFromSerializedProto(proto)
    return lambda s: (p.encode(s), None)


def sp_of_gguf(path):
    """A SentencePiece model with the pieces of a GGUF file."""
    from gguf import GGUFReader
    from sentencepiece import sentencepiece_model_pb2 as pb
    f = GGUFReader(path).fields
    tokens, scores, types = (f["tokenizer.ggml." + k].contents() for k in ("tokens", "scores", "token_type"))
    m = pb.ModelProto()
    for t, s, k in zip(tokens, scores, types): m.pieces.add(piece=t, score=s, type=k)
    m.trainer_spec.model_type, m.trainer_spec.byte_fallback, m.trainer_spec.vocab_size = 2, True, len(tokens)
    m.normalizer_spec.name, m.normalizer_spec.remove_extra_whitespaces = "identity", False
    return m.SerializeToString()


def cases():
    """Name, our file, flags, the other's answer, whether bytes come back whole, whether its spans can be compared."""
    d = o.data
    yield "gpt2 | tokenizers", d + "/gpt2/vocab.json", 1, gpt2_hf(), True, True
    from tiktoken_ext.openai_public import r50k_pat_str
    yield "gpt2 | tiktoken", d + "/gpt2/vocab.json", 0, tt("gpt2", r50k_pat_str, gpt2_ranks(), {}, False), True, False
    yield "gpt2 gguf | tokenizers", d + "/vocab/ggml-vocab-gpt-2.gguf", 1, gpt2_hf(), True, True
    spm = d + "/vocab/ggml-vocab-llama-spm.gguf"
    yield "llama gguf | sentencepiece", spm, 0, sp(sp_of_gguf(spm)), False, False
    tilia("tokenizer", "convert", spm, TMP + "/llama.json")
    yield "llama converted | tokenizers", TMP + "/llama.json", 1, hf_file(TMP + "/llama.json"), False, False
    text = d + "/tinyshakespeare.txt"
    for p in ("gpt2", "cl100k", "o200k", "llama3", "qwen2", r"\p{L}+|\p{N}{1,2}|[^\p{L}\p{N}\s]+|\s+"):
        name = TMP + "/trained_%s.json" % (p if p.isalnum() else "own")
        tilia("tokenizer", "train", text, d + "/wikitext2-valid.txt", "--vocab", "4000", "--pattern", p, "--out", name)
        yield "trained here, %s | tokenizers" % p, name, 1, hf_file(name), True, True
    for r in cases_pieces(): yield r
    for r in cases_real() if o.real else (): yield r


def cases_pieces():
    """SentencePiece models trained here, as .model and converted to tokenizer.json."""
    import io, sentencepiece
    lines = (read("wikitext2-valid.txt")[:300000] + "\n" + "\n".join(s for _, s in ALL[:800] if "\0" not in s)).split("\n")
    for kind in ("unigram", "bpe"):
        for rule in ("nmt_nfkc", "nfkc_cf", "identity"):
            for fallback in (False, True):
                f, name = io.BytesIO(), "%s, %s%s" % (kind, rule, ", bytes" if fallback else "")
                sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=f, model_type=kind, vocab_size=2800,
                                                         normalization_rule_name=rule, byte_fallback=fallback, minloglevel=9)
                path = TMP + "/%s_%s_%d.model" % (kind, rule, fallback)
                open(path, "wb").write(f.getvalue())
                yield name + " | sentencepiece", path, 0, sp(f.getvalue()), False, False
                if kind == "bpe" and not fallback: continue  # that library fuses unknown characters otherwise
                tilia("tokenizer", "convert", path, path + ".json")
                yield name + ", converted | tokenizers", path + ".json", 1, hf_file(path + ".json"), False, False


def cases_real():
    d = o.real + "/"
    for name in ("p50k_base", "cl100k_base", "o200k_base"):
        path = d + name + ".tiktoken"
        if os.path.exists(path):
            yield name + " | tiktoken", path, 1, tt_known(name, path), True, False
            yield name + ", no special tokens | tiktoken", path, 0, tt_known(name, path, False), True, False
    cl = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    for name, digits in (("qwen", ""), ("llama3", "{1,3}")):
        path = d + name + ".tiktoken"
        if os.path.exists(path): yield name + " | tiktoken", path, 0, tt(name, cl % digits, ranks_of(path), {}, False), True, False
    if os.path.exists(d + "llama4.tiktoken"):
        from tiktoken_ext import openai_public as p
        keep, p.load_tiktoken_bpe = p.load_tiktoken_bpe, lambda *_, **__: {}
        pattern, p.load_tiktoken_bpe = p.o200k_base()["pat_str"], keep
        yield "llama4 | tiktoken", d + "llama4.tiktoken", 0, tt("llama4", pattern, ranks_of(d + "llama4.tiktoken"), {}, False), True, False
    for name in sorted(os.listdir(d)):
        if name.endswith(".json"): yield name + " | tokenizers", d + name, 1, hf_file(d + name), False, False
        if name.endswith(".model"): yield name + " | sentencepiece", d + name, 0, sp(open(d + name, "rb").read()), False, False


# ---- comparison ---------------------------------------------------------------------------------


def whole_characters(text, spans):
    """Spans grown to whole characters, as the other library gives them."""
    out = []
    for b, e in spans:
        while b and b < len(text) and text[b] & 0xc0 == 0x80: b -= 1
        while e < len(text) and text[e] & 0xc0 == 0x80: e += 1
        out.append((b, e))
    return out


def compare(name, path, flags, ask, back, spans):
    texts, bad, n, began = list(ALL), [], 0, time.time()
    mine = ours(path, [s.encode() for _, s in texts], flags)
    gave_up = []
    for (what, s), (ids, at, text) in zip(texts, mine):
        n += 1
        raw = s.encode()
        try: want, offsets = ask(s)
        except Exception as e:  # a regular expression of the other library may overflow on a megabyte without a blank
            gave_up.append((what, e))
            want, offsets = ids, None
        if ids != list(want): bad.append((what, "ids", s, ids, list(want)))
        elif spans and offsets is not None and whole_characters(raw, at) != [tuple(x) for x in offsets]: bad.append((what, "spans", s, at, offsets))
        if back and text != raw: bad.append((what, "decoded", s, text[:100], ""))
    if len(mine) != len(texts): bad.append(("", "ended early", "", "", ""))
    print("%-46s %d texts, %d differ (%.0f s)" % (name, n, len(bad), time.time() - began), flush=True)
    for what, e in gave_up[:5]: print("    %s: the other library gives up: %s" % (what, str(e)[:120]))
    for what, kind, s, x, y in bad[:5]:
        k = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
        print("    %s, %s: %r\n      at %d: ours %s\n            theirs %s" % (what, kind, s[:80], k, x[max(0, k - 3):k + 8], y[max(0, k - 3):k + 8]))
    return len(bad)


def write():
    """tests/tokenizer/vectors/fuzzed_*.cases.json: python3 bench/tokenizer_oracle.py build DATA --strings 250 --write tests/tokenizer/vectors"""
    texts = [t for t in (fuzzed() for _ in range(o.strings)) if "\0" not in t]  # the JSON reader refuses those
    for name, ask in (("gpt2", gpt2_hf()), ("llama", sp(sp_of_gguf(o.data + "/vocab/ggml-vocab-llama-spm.gguf")))):
        rows = [[t, list(ask(t)[0])] for t in texts]
        json.dump(rows, open(o.write + "/fuzzed_%s.cases.json" % name, "w"), separators=(",", ":"))


if o.write: sys.exit(write())
ALL = list(strings())
total = sum(compare(*c) for c in cases() if not o.only or any(x in c[0] for x in o.only.split(",")))
print("%d differences" % total)
sys.exit(total > 0)
