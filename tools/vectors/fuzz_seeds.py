"""Writes tests/fuzz/seeds/FUZZER/: small valid files for the fuzzers of tokenizer readers to start from.

Run from the root of the project with a Python that has tokenizers, sentencepiece and gguf. The folders vectors/ and
invalid/ of tests/tokenizer are seeds too: .ci/run gives them to every fuzzer that reads what they hold."""
import base64, io, json, os, random
import sentencepiece
from gguf import GGUFWriter
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

R = random.Random(7)
WORDS = "low lower lowest new newer wide wider don't 12 café 中文 分词 日本 🙂 the cat sat on a mat".split()
LINES = [" ".join(R.choice(WORDS) for _ in range(8)) for _ in range(200)]


def put(fuzzer, name, data):
    d = "tests/fuzz/seeds/" + fuzzer
    os.makedirs(d, exist_ok=True)
    open(d + "/" + name, "wb").write(data)


t = Tokenizer(models.BPE())
t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=300, show_progress=False, special_tokens=["<|endoftext|>"],
                                                 initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
m = json.loads(t.to_str())["model"]
pair = [x if isinstance(x, str) else " ".join(x) for x in m["merges"]]
put("f_gpt2", "pair", json.dumps(m["vocab"]).encode() + b"\0#version: 0.2\n" + "\n".join(pair).encode() + b"\n")
put("f_gpt2", "tiny", b'{"a": 0, "b": 1, "ab": 2, "<|endoftext|>": 3}\0a b\n')

ranks = [bytes([b]) for b in range(256)] + [b"lo", b"low", b"er", b"lower", "中".encode()]
put("f_tiktoken", "ranks", b"".join(base64.b64encode(x) + b" %d\n" % i for i, x in enumerate(ranks)))
put("f_tiktoken", "few", b"YQ== 0\nYg== 1\nYWI= 2\n")

TEXTS = ["", " ", "low", " low  lower ", "low\u2581", "\u2581low \u2581 ", "<0x41>low", "<s>low</s>", "caf\u00e9 \ufb01", "\U0001f642\u0001x",
         "\u4e2d\u6587\u5206\u8bcd", "don't 12", "the cat  sat\n on\ta mat"] + LINES[:12]
pieces = {}


def answers(proto):
    """The other library's ids: t_tok_vectors wants the same."""
    p = sentencepiece.SentencePieceProcessor()
    p.LoadFromSerializedProto(proto)
    return [[t, p.encode(t)] for t in TEXTS]


for kind, more in [("bpe", {}), ("unigram", {}), ("bpe", dict(byte_fallback=True)), ("unigram", dict(byte_fallback=True)),
                   ("unigram", dict(normalization_rule_name="identity", add_dummy_prefix=False))]:
    f = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=f, model_type=kind,
                                             vocab_size=360 if "byte_fallback" in more else 70, hard_vocab_limit=False,
                                             **{"normalization_rule_name": "identity", **more})
    name = kind + "_" + "_".join(more or ["plain"])
    put("f_sentencepiece", name, f.getvalue())
    pieces[name] = answers(f.getvalue())
json.dump(pieces, open("tests/tokenizer/vectors/pieces.cases.json", "w"), separators=(",", ":"))


def gguf(name, model, tokens, **kw):
    path = "/tmp/seed.gguf"
    w = GGUFWriter(path, "llama")
    w.add_tokenizer_model(model)
    w.add_token_list(tokens)
    if "pre" in kw: w.add_tokenizer_pre(kw["pre"])
    if "types" in kw: w.add_token_types(kw["types"])
    if "scores" in kw: w.add_token_scores(kw["scores"])
    if "merges" in kw: w.add_token_merges(kw["merges"])
    w.add_bos_token_id(1), w.add_eos_token_id(2), w.add_unk_token_id(0)
    if "chat" in kw: w.add_chat_template(kw["chat"])
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    put("f_gguf", name, open(path, "rb").read())
    os.unlink(path)


small = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)] + ["▁", "l", "o", "w", "lo", "low", "▁low", "中"]
kinds = [2, 3, 3] + [6] * 256 + [1] * 8
gguf("llama", "llama", small, types=kinds, scores=[0.0] * 259 + [-float(i) for i in range(8)],
     chat="{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>{% endfor %}")
gguf("gpt2", "gpt2", ["a", "b", "ab", "Ġ", "Ġa", "<|end|>"], types=[1] * 5 + [3], merges=["a b", "Ġ a"], pre="gpt-2")
gguf("t5", "t5", small, types=kinds, scores=[0.0] * 259 + [-float(i) for i in range(8)])
gguf("bert", "bert", ["[UNK]", "[CLS]", "[SEP]", "▁low", "▁a", "er", "b", "中"], types=[3, 3, 3] + [1] * 5)

for i, s in enumerate(["low lower<|e|> newest\n\n", "中文分词 don't 12345", "\xff\xfe ab" * 3, "aaaaaaaaaaaa\n<x> b"]):
    for k in range(6):
        put("f_token_text", "text%d_%d" % (i, k), bytes([k, 7 * i]) + s.encode("latin-1", "ignore") + s.encode())
