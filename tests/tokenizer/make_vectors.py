"""Writes vectors/NAME.json and NAME.cases.json: small tokenizers made and asked by Hugging Face tokenizers.

Run from this folder with a Python that has `tokenizers`; t_tok_vectors.c then wants the same ids and texts."""
import json, os, random
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

R = random.Random(4)
WORDS = ("the cat sat on a mat and saw another hat under running water; low lower lowest wide wider widest new newer "
         "newest café naïve Ångström 中文分词 日本語 テスト Привет мир über straße ½ ² ﬁne e\u0301 \u1e9b\u0323 résumé "
         "don't we're I'll 12345 3.14 (a+b)*c == d; <b> [x] _y_ 🙂 👩‍👩‍👧 ไทย हिन्दी 한국어").split(" ")
CORPUS = [" ".join(R.choice(WORDS) for _ in range(12)) for _ in range(400)]


def text(n):
    out = []
    for _ in range(n):
        k = R.random()
        if k < 0.55: out.append(R.choice(WORDS))
        elif k < 0.75: out.append(R.choice([" ", " ", "  ", "\n", "\t", "\u3000", "\u00a0", "\u2028", "▁", "\u200b"]))
        elif k < 0.9: out.append(chr(R.randrange(32, 127)))
        else: out.append(chr(R.choice([R.randrange(0xa1, 0x2000), R.randrange(0x3000, 0xa000), R.randrange(0xac00, 0xd7a3), R.randrange(0x1f300, 0x1f640), R.randrange(0x20000, 0x2a000)])))
    return "".join(out)


CASES = ["", " ", "  ", "\n", "a", "Hello world", " Hello  world ", "<s>a</s>", "[CLS] x [MASK] y", "x<sep> y",
         "ab<sep>cd", "[UNK]", "don't stop", "中文分词", "é e\u0301", "A\u0301B", "🙂", "the the", "word.", "<pad>"] + \
        [text(R.randrange(1, 14)) for _ in range(120)]
PIECES = ["<unk>", "<s>", "</s>", "<pad>"]


def bpe(**kw):
    special = kw.pop("special", [])
    t = Tokenizer(models.BPE(**kw.pop("model", {})))
    t.normalizer, t.pre_tokenizer = kw.get("norm"), kw.get("pre")
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=kw.get("size", 400), special_tokens=special, show_progress=False,
                                                      **kw.get("train", {})))
    t.decoder, t.post_processor = kw.get("dec"), kw.get("post")
    return t


def again(t, change):
    d = json.loads(t.to_str())
    change(d)
    return Tokenizer.from_str(json.dumps(d))


def build():
    P, N, D = pre_tokenizers, normalizers, decoders
    bl = P.ByteLevel(add_prefix_space=False)
    alpha = dict(initial_alphabet=P.ByteLevel.alphabet())
    yield "bytelevel", bpe(pre=bl, dec=D.ByteLevel(), train=alpha, special=["<s>", "</s>"],
                           post=processors.TemplateProcessing("<s> $A </s>", "<s> $A $B", [("<s>", 0), ("</s>", 1)]))
    yield "bytelevel_prefix", bpe(pre=P.ByteLevel(add_prefix_space=True), dec=D.ByteLevel(), train=alpha,
                                  special=["<s>", "</s>"], post=processors.RobertaProcessing(("</s>", 1), ("<s>", 0)))
    yield "nfc", bpe(norm=N.NFC(), pre=P.Sequence([P.Digits(True), bl]), dec=D.ByteLevel(), train=alpha)
    yield "nfkc_lower", bpe(norm=N.Sequence([N.NFKC(), N.Lowercase()]), pre=bl, dec=D.ByteLevel(), train=alpha)
    yield "llama2", again(bpe(model=dict(byte_fallback=True, fuse_unk=True, unk_token="<unk>"), special=PIECES +
                        ["<0x%02X>" % i for i in range(256)], size=700, norm=N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")]),
                        dec=D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])),
                          lambda d: d.update(added_tokens=[a for a in d["added_tokens"] if not a["content"].startswith("<0x")]))
    yield "metaspace", bpe(model=dict(unk_token="<unk>"), special=PIECES, pre=P.Metaspace(), dec=D.Metaspace())
    yield "metaspace_first", bpe(model=dict(unk_token="<unk>", fuse_unk=True), special=PIECES,
                                 pre=P.Metaspace(prepend_scheme="first"), dec=D.Metaspace(prepend_scheme="first"))
    yield "affixes", bpe(model=dict(unk_token="<unk>", continuing_subword_prefix="@@", end_of_word_suffix="</w>"),
                         special=PIECES, pre=P.WhitespaceSplit(), dec=D.BPEDecoder("</w>"),
                         train=dict(continuing_subword_prefix="@@", end_of_word_suffix="</w>"))
    yield "ignore_merges", again(bpe(pre=P.Sequence([P.Split(Regex(r"\p{Lu}?\p{Ll}+|\p{N}{1,2}|\s+|[^\s\p{L}\p{N}]"), "isolated"),
                                 P.ByteLevel(add_prefix_space=False, use_regex=False)]), dec=D.ByteLevel(), train=alpha),
                                 lambda d: d["model"].update(ignore_merges=True))
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer = N.BertNormalizer(), P.BertPreTokenizer()
    t.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    t.decoder, t.post_processor = D.WordPiece(), processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    yield "bert", t
    t = again(t, lambda d: d["normalizer"].update(lowercase=False, strip_accents=True, handle_chinese_chars=False))
    yield "bert_cased", t
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.normalizer = N.Sequence([N.NFD(), N.StripAccents(), N.Strip(), N.Nmt()])
    t.pre_tokenizer = P.Sequence([P.Whitespace(), P.Punctuation("isolated"), P.Digits(False)])
    t.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=PIECES, show_progress=False))
    yield "words", t
    for name, kw in [("unigram", {}), ("unigram_bytes", dict(byte=True))]:
        t = Tokenizer(models.Unigram())
        t.normalizer = N.Sequence([N.NFKC(), N.Replace(Regex(" {2,}"), " ")])
        t.pre_tokenizer, t.decoder = P.Metaspace(), D.Metaspace()
        t.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=300, special_tokens=PIECES, unk_token="<unk>", show_progress=False))
        if kw:
            def f(d):
                d["model"]["vocab"] += [["<0x%02X>" % i, -20.0] for i in range(256)]
                d["model"]["byte_fallback"] = True
                d["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, d["decoder"]]}
            t = again(t, f)
        yield name, t
    for behavior in ["removed", "merged_with_previous", "merged_with_next", "contiguous"]:
        yield "split_" + behavior, bpe(model=dict(unk_token="<unk>"), special=PIECES,
                                       pre=P.Sequence([P.Split(Regex(r"[aeiou]"), behavior), P.Punctuation(behavior)]))
    yield "split_misc", bpe(model=dict(unk_token="<unk>"), special=PIECES, pre=P.Sequence(
        [P.CharDelimiterSplit("e"), P.Split("the", "merged_with_next"), P.Split(Regex(r"\w+"), "isolated", True), P.FixedLength(3)]),
        dec=D.Sequence([D.CTC("<pad>", "|"), D.Fuse()]))
    yield "scripts", bpe(model=dict(unk_token="<unk>"), special=PIECES, pre=P.Sequence([P.UnicodeScripts(), P.WhitespaceSplit()]))
    t = bpe(pre=bl, dec=D.ByteLevel(), train=alpha, norm=N.NFC(), special=["<s>"])
    t.add_tokens([AddedToken("<sep>", lstrip=True, rstrip=True, normalized=False), AddedToken("the", single_word=True),
                  AddedToken("日本", normalized=True), AddedToken("cat sat")])
    t.add_special_tokens([AddedToken("<pad>", lstrip=True), AddedToken("<pad>>")])
    yield "added", t


os.makedirs("vectors", exist_ok=True)
for name, t in build():
    t.save("vectors/%s.json" % name, pretty=False)
    cases = []
    for s in CASES:
        e = t.encode(s)
        cases.append([s, e.ids, t.encode(s, add_special_tokens=False).ids, t.decode(e.ids, skip_special_tokens=False),
                      t.decode(e.ids), [[len(s[:a].encode()), len(s[:b].encode())] for a, b in e.offsets]])
    json.dump(cases, open("vectors/%s.cases.json" % name, "w"), ensure_ascii=True, separators=(",", ":"))
    print(name, t.get_vocab_size())

from gguf import GGUFWriter  # the vocabulary of "bert" as GGUF has it: marks at beginnings of words

v = json.load(open("vectors/bert.json"))["model"]["vocab"]
tokens = [k for k, _ in sorted(v.items(), key=lambda x: x[1])]
special = [k[0] == "[" and k[-1] == "]" and len(k) > 2 for k in tokens]
w = GGUFWriter("vectors/bert.gguf", "bert")
w.add_tokenizer_model("bert")
w.add_token_list([k if s else k[2:] if k.startswith("##") else "▁" + k for k, s in zip(tokens, special)])
w.add_token_types([3 if s else 1 for s in special])
w.add_unk_token_id(1), w.add_bos_token_id(2), w.add_sep_token_id(3), w.add_pad_token_id(0), w.add_mask_token_id(4)
w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
