"""Tokenizers, models, sessions, training, data, plans: what a program is written with."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

import tilia

np = pytest.importorskip("numpy")


def test_tokenizers(tmp_path, text):
    b = tilia.Tokenizer.bytes()
    assert (b.vocab, b.eos, b.bos, len(b)) == (257, 256, None, 257)
    assert b.decode(b.encode("grün 🙂")) == "grün 🙂"
    c = tilia.Tokenizer.chars("abc")
    assert c.decode(c.encode("cab")) == "cab"
    t = tilia.Tokenizer.train(text, vocab=320)
    assert t.decode(t.encode(text)) == text and len(t.encode(text)) < len(text) / 2
    t.save(tmp_path / "tokenizer.json")
    again = tilia.Tokenizer.open(tmp_path / "tokenizer.json")
    assert list(again.encode(text)) == list(t.encode(text))
    path = tmp_path / "corpus.txt"
    path.write_text(text)
    phases = []
    from_file = tilia.Tokenizer.train(vocab=320, files=[path], progress=lambda *a: phases.append(a))
    assert from_file.vocab > 257 and phases
    assert list(t.encode("")) == [] and t.decode([]) == ""
    with pytest.raises(ValueError):
        b.decode([70000])
    with pytest.raises(ValueError):
        b.decode([1.5])


def test_an_exception_in_a_callback_comes_out(tmp_path, text):
    def fail(*a):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        (tmp_path / "a.txt").write_text(text)
        tilia.Tokenizer.train(files=[tmp_path / "a.txt"], vocab=400, progress=fail)


def test_text_is_str_or_bytes(trained):
    t = tilia.Tokenizer.bytes()
    assert list(t.encode(b"ab")) == list(t.encode("ab")) == list(t.encode(bytearray(b"ab"))) == [97, 98]
    for wrong in (3, None, ["a"]):
        with pytest.raises(TypeError, match="str or bytes"):
            t.encode(wrong)
    assert trained.generate(b"ab", max_tokens=4, temperature=0) == trained.generate("ab", max_tokens=4, temperature=0)


def test_errors_say_where(tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        tilia.Model.open(tmp_path / "nothing")
    assert isinstance(e.value, tilia.Error) and "nothing" in e.value.file
    again = pickle.loads(pickle.dumps(e.value))
    assert type(again) is tilia.NotFoundError and again.file == e.value.file and str(again) == str(e.value)
    m = tilia.Model.create("preset:tiny")
    m.save(tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(tilia.FormatError) as e:
        tilia.Model.open(tmp_path / "m")
    assert "model.safetensors" in e.value.file and isinstance(e.value, ValueError)
    with pytest.raises(ValueError, match="preset"):
        tilia.Model.create("preset:none")
    with pytest.raises(ValueError):
        tilia.Model.create({"model_type": "llama", "hidden_size": -1})
    with pytest.raises(OSError):
        tilia.Model.create("preset:tiny").save("/proc/nowhere/model")


def test_models_are_saved_and_opened(tmp_path, trained):
    trained.save(tmp_path / "m")
    with tilia.Model.open(tmp_path / "m") as m:
        assert m.info.params == trained.info.params and m.tokenizer.vocab == 257
        assert m.generate("The quick", max_tokens=20) == trained.generate("The quick", max_tokens=20)
        mine, theirs = m.state_dict(), trained.state_dict(copy=False)
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name])
    assert m.closed
    with pytest.raises(tilia.StateError, match="closed"):
        m.info


def test_views_of_weights_pin_the_model():
    m = tilia.Model.create("preset:tiny", seed=3)
    w = m.state_dict(copy=False)["model.embed_tokens.weight"]
    before = w.copy()
    with pytest.raises(ValueError):
        w[0, 0] = 1
    m.close()
    np.testing.assert_array_equal(w, before)


def test_weights_are_set_by_name():
    a, b = tilia.Model.create("preset:tiny", seed=1), tilia.Model.create("preset:tiny", seed=2)
    options = dict(max_tokens=9, temperature=1.0, seed=4)
    assert a.generate("x", **options) != b.generate("x", **options)
    b.load_state_dict({k[6:]: v for k, v in a.state_dict().items()})  # without the leading "model."
    assert a.generate("x", **options) == b.generate("x", **options)
    with pytest.raises(ValueError, match="no such tensor"):
        b.load_state_dict({"nonsense": np.zeros(3, "f4")})


def test_generation(trained):
    with trained.session(max_tokens=30) as s:
        pieces = list(s.generate("The quick brown"))
        assert pieces[-1].finish == "length" and sum(p.id is not None for p in pieces) == 30
        out = "".join(p.text for p in pieces)
        assert " fox" in out
        assert list(s.tokens)[-1] == [p.id for p in pieces if p.id is not None][-1]
        assert s.position == len(s.tokens)
        assert s.next() is None
        assert s.rewind(16) == 16
        assert "".join(p.text for p in s).startswith(out[:5])
        assert s.logits().shape == (257,)
    stopped = "".join(trained.stream("The quick brown", max_tokens=60, stop=" jumps"))
    assert stopped == out[: out.index(" jumps")]
    warm = dict(max_tokens=30, temperature=1.0, top_k=20, top_p=0.9, seed=5)
    assert trained.generate("The", **warm) == trained.generate("The", **warm)
    assert trained.generate("The", **warm) != trained.generate("The", **{**warm, "seed": 6})
    with pytest.raises(ValueError, match="vocabulary"):
        trained.session().feed([9999])
    with pytest.raises(TypeError):
        trained.session(nonsense=1)


def test_sessions_fork_and_are_saved(trained, tmp_path):
    options = dict(max_tokens=40, temperature=0.9, seed=2)
    whole = [p.id for p in trained.session(**options).generate("The lazy")]
    s = trained.session(**options).feed("The lazy")
    first = [s.next().id for _ in range(10)]
    twin = s.fork()
    assert first + [p.id for p in twin] == whole
    s.save(tmp_path / "state.json")
    assert first + [p.id for p in s] == whole
    loaded = trained.session(**{**options, "max_tokens": 30}).load(tmp_path / "state.json")
    assert first + [p.id for p in loaded] == whole
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="not a saved session"):
        loaded.load(tmp_path / "bad.json")


def test_fork_inside_a_character(trained):
    raw = "é".encode()
    s = trained.session(max_tokens=5, seed=1, temperature=1.5)
    s.feed("a")
    for _ in range(3):
        s.next()
        twin = s.fork()
        assert list(twin.tokens) == list(s.tokens)
    assert "".join(p.text for p in twin) == "".join(p.text for p in s) and raw


def test_training_learns_and_reports(text):
    m = tilia.Model.create("preset:tiny", seed=1)
    t = tilia.Trainer(m, steps=30, rows=4, context=32, lr=1e-2, warmup=3, schedule="linear").add_text(text)
    before = t.eval(text)
    seen = list(t)
    assert [x.step for x in seen] == list(range(1, 31))
    assert seen[-1].loss < seen[0].loss - 1 and t.eval(text) < before - 1
    assert seen[0].tokens == 128 and seen[0].flops > 0 and t.bytes > 0
    assert abs(seen[0].lr - 1e-2 / 4) < 1e-8
    with pytest.raises(ValueError, match="schedule"):
        tilia.Trainer(m, schedule="up")


def test_training_on_own_batches_is_the_same_training(text):
    d = tilia.Dataset(tilia.Tokenizer.bytes()).add(text)
    d.shape(rows=2, context=16, seed=0)
    runs = []
    for own in (False, True):
        m = tilia.Model.create("preset:tiny", seed=1)
        t = tilia.Trainer(m, steps=5, rows=2, context=16, seed=0)
        if own:
            batches = (np.concatenate([b.input, b.target[:, -1:]], 1) for b in map(d.batch, range(5)))
            runs.append([t.step(ids).loss for ids in batches])
        else:
            t.add_text(text)
            runs.append([x.loss for x in t])
    assert runs[0] == runs[1]
    with pytest.raises(ValueError, match="must have"):
        t.step([[1, 2, 3]])


def test_progress_and_stopping(text):
    class Bar:
        n = 0
        post = None

        def update(self, n):
            self.n += n

        def set_postfix(self, **kw):
            self.post = kw

    m = tilia.Model.create("preset:tiny", seed=1)
    t = tilia.Trainer(m, steps=6, rows=2, context=16).add_text(text)
    bar = Bar()
    assert t.run(bar, batches=[np.zeros((2, 17), int)] * 2).step == 2
    assert bar.n == 2 and "loss" in bar.post
    assert t.run(lambda x: x.step < 4).step == 4
    assert t.run().step == 6


def test_training_goes_on(tmp_path, text):
    def losses(t):
        return [m.loss for m in t]

    m = tilia.Model.create("preset:tiny", seed=1)
    t = tilia.Trainer(m, steps=6, rows=2, context=16, seed=5).add_text(text)
    first = [t.step().loss for _ in range(3)]
    t.save(tmp_path / "run", keep=1)
    rest = losses(t)
    again = tilia.Trainer.resume(tmp_path / "run").add_text(text)
    assert (again.steps, again.rows, again.context) == (6, 2, 16)
    assert losses(again) == rest and len(first) + len(rest) == 6
    assert again.model.generate("the", max_tokens=3) is not None
    longer = tilia.Trainer.resume(tmp_path / "run", steps=8).add_text(text)
    assert len(losses(longer)) == 5
    with pytest.raises(FileNotFoundError):
        tilia.Trainer.resume(tmp_path / "nothing")
    assert tilia.Model.open(tmp_path / "run").info.layers == m.info.layers


def test_dataset(tmp_path, text):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    d = tilia.Dataset(tilia.Tokenizer.bytes()).add("three").add_files(tmp_path / "a.jsonl")
    assert d.documents == 3 and d.tokens == 3 + 3 + 5 + 3
    d.shape(rows=1, context=5, packed=True, seed=1)
    assert len(d) == len(list(d)) and sum(b.labels for b in d) == d.tokens
    b = d.shape(rows=2, context=5, packed=True, seed=1).batch(10**6)
    assert b.input.shape == (2, 5) and b.position[0, 0] == 0
    np.testing.assert_array_equal(d.batch(3).target, d.batch(3).target)
    m = tilia.Model.create("preset:tiny")
    with tilia.Trainer(m, steps=3, rows=2, context=5, packed=True, data=d) as t:
        assert [x.step for x in t] == [1, 2, 3]
        with pytest.raises(ValueError, match="trainer uses"):
            d.add("more")
    d.add("more")
    with pytest.raises(ValueError, match="line 1|:1"):
        (tmp_path / "b.jsonl").write_text("not json\n")
        d.add_files(tmp_path / "b.jsonl")
    own = tilia.Dataset(vocab=10, eos=9).add([1, 2, 3])
    assert own.tokens == 4
    with pytest.raises(ValueError, match="outside the vocabulary"):
        own.add([10])


def test_plan_is_what_training_takes():
    p = tilia.plan("preset:tiny", rows=4, context=32, train=True)
    assert p.params == tilia.Model.create("preset:tiny").info.params
    assert p.memory > p.weights > 0 and p.flops > 6 * 4 * 32 * p.params_no_embedding
    assert tilia.plan("preset:tiny").gradients == 0
    with pytest.raises(ValueError, match="number type"):
        tilia.plan("preset:tiny", dtype="f7")


def test_objects_die_in_any_order():
    m = tilia.Model.create("preset:tiny")
    s, t = m.session(), tilia.Trainer(m, steps=1, context=8)
    del m
    s.feed("a").next()
    s.close()
    s.close()
    t.step(np.zeros((1, 9), int))
    e = tilia.Engine(threads=1)
    m = tilia.Model.create("preset:tiny", engine=e)
    s = m.session().feed("x")
    e.close()
    assert m.closed and s.closed
    with pytest.raises(tilia.StateError):
        s.next()


def test_logging_hears_the_library(caplog):
    caplog.set_level(logging.DEBUG, "tilia")
    tilia.Model.create({"model_type": "llama", "vocab_size": 257, "hidden_size": 16, "intermediate_size": 16,
                        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8,
                        "rms_norm_eps": 1e-6, "surprise": 1})  # fmt: skip
    assert "surprise" in caplog.text


def test_interrupt_between_tokens(trained):
    """Ctrl-C during a long generation comes out within one token."""
    s = trained.session(ignore_eos=True, context=4096).feed("x")
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    last = time.perf_counter()
    longest = 0.0
    with pytest.raises(KeyboardInterrupt):
        for _ in s:
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        time.sleep(1)  # a fast machine
    assert time.perf_counter() - last < max(0.5, 5 * longest)
    s.next()  # and it goes on


def test_a_forked_child_makes_its_own(trained):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            try:
                trained.generate("a", max_tokens=1)
            except tilia.StateError:
                m = tilia.Model.create("preset:tiny", seed=1)
                code = 0 if len(m.state_dict()) and m.generate("a", max_tokens=2) is not None else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_text_works_without_numpy(tmp_path):
    code = """
import sys
sys.modules["numpy"] = None
import tilia
m = tilia.Model.create("preset:tiny", seed=1)
t = tilia.Trainer(m, steps=2, rows=1, context=8).add_text("hello world hello world")
print([x.step for x in t], t.step([list(range(9))]).step)
s = m.session(max_tokens=3)
print(len(list(s.generate([1, 2, 3]))), type(s.logits()).__name__, list(m.tokenizer.encode("hi")))
d = tilia.Dataset(m.tokenizer).add("some text of a length").shape(1, 4)
print(len(d.batch(0).input))
try:
    tilia.ops
except ImportError as e:
    print("no ops:", "NumPy" in str(e))
"""
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                       env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(tilia.__file__))})  # fmt: skip
    assert r.returncode == 0, r.stderr
    assert r.stdout.split("\n")[:4] == ["[1, 2] 3", "4 array [104, 105]", "4", "no ops: True"]
