"""Tokenizer, Model, Session: text in, text out."""

from __future__ import annotations

import ctypes as C
import json
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

from ._arrays import floats_copy, ids_in, ids_out, need_numpy, np
from ._engine import Engine, default_engine
from ._errors import FormatError
from ._handle import Handle, Ref
from ._lib import (
    TOKENIZER_PROGRESS,
    call,
    lib,
    path_bytes,
    strings,
    text_of,
    tl_model_info,
    tl_model_tensor,
    tl_piece,
    tl_session_options,
    tl_tokenizer_train_options,
)

PathLike = Union[str, "os.PathLike[str]"]
FINISH = (None, "eos", "stop", "length", "context")


def _utf8(text: Any) -> bytes:
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    if not isinstance(text, (bytes, bytearray, memoryview)):
        raise TypeError(f"text is str or bytes, not {type(text).__name__}")
    return bytes(text)


class Tokenizer(Handle):
    """Text to token ids and back. Made by open, bytes, chars or train. Any number of threads may use one.

    >>> import tilia
    >>> t = tilia.Tokenizer.bytes()
    >>> t.encode("hi").tolist(), t.decode([104, 105])
    ([104, 105], 'hi')
    """

    _engine: Engine

    @classmethod
    def _make(cls, engine: Optional[Engine], name: str, *args: Any) -> "Tokenizer":
        self = cls.__new__(cls)
        self._engine = engine or default_engine()
        out = C.c_void_p()
        call(name, self._engine._ptr, *args, C.byref(out))
        self._own(out.value, lib.tl_tokenizer_close, self._engine)
        return self

    @classmethod
    def open(cls, path: PathLike, *, engine: Optional[Engine] = None) -> "Tokenizer":
        """A tokenizer file or the directory that holds one: Hugging Face's tokenizer.json, vocab.json with merges.txt,
        tiktoken ranks, SentencePiece, GGUF; told by content. Errors: OSError, ValueError (with file and line)."""
        return cls._make(engine, "tl_tokenizer_open", path_bytes(path))

    @classmethod
    def bytes(cls, *, engine: Optional[Engine] = None) -> "Tokenizer":
        """Ids 0..255 are the bytes, 256 ends a document."""
        return cls._make(engine, "tl_tokenizer_bytes")

    @classmethod
    def chars(cls, text: str, *, engine: Optional[Engine] = None) -> "Tokenizer":
        """One id per character of text, in order of code points, then two of its own.

        >>> import tilia
        >>> tilia.Tokenizer.chars("abca").vocab
        5
        """
        raw = text.encode("utf-8", "replace")
        return cls._make(engine, "tl_tokenizer_chars", raw, len(raw))

    @classmethod
    def train(
        cls,
        text: str = "",
        *,
        vocab: int,
        files: Iterable[PathLike] = (),
        min_count: int = 0,
        split: Optional[str] = None,
        special: Sequence[str] = ("<|endoftext|>",),
        progress: Optional[Callable[[str, int, int], Any]] = None,
        engine: Optional[Engine] = None,
    ) -> "Tokenizer":
        """Byte-level BPE learnt from text (one document) and files. vocab: upper bound, 256 bytes and special tokens
        included. split: "gpt2" (default), "cl100k", "o200k", "llama3", "qwen2", "none", or a pattern. progress is
        called with (phase, done, total); returning False stops with Cancelled.

        >>> import tilia
        >>> t = tilia.Tokenizer.train("low lower lowest " * 50, vocab=300)
        >>> t.decode(t.encode("lowest")), len(t.encode(" lower")) < 6
        ('lowest', True)
        """
        raw = text.encode("utf-8", "surrogatepass")
        specials, n_special = strings(special)
        paths, n_files = strings([path_bytes(f) for f in files])
        failed: List[BaseException] = []

        def report(user, phase, done, total):
            try:
                return progress is None or progress(text_of(phase), done, total) is not False
            except BaseException as e:  # carried out of the library
                failed.append(e)
                return False

        o = tl_tokenizer_train_options(
            vocab=vocab,
            min_count=min_count,
            split=split.encode() if split else None,
            special=specials,
            n_special=n_special,
            files=paths,
            n_files=n_files,
            progress=TOKENIZER_PROGRESS(report),  # without a function too: Ctrl-C comes out through it
        )
        try:
            return cls._make(engine, "tl_tokenizer_train", C.byref(o), raw, len(raw))
        except Exception:
            if failed:
                raise failed[0] from None
            raise

    def save(self, path: PathLike) -> None:
        """Writes a file that open reads back to the same ids (tokenizer.json of Hugging Face)."""
        call("tl_tokenizer_save", self._ptr, path_bytes(path))

    @property
    def vocab(self) -> int:
        """How many ids there are."""
        return lib.tl_tokenizer_vocab(self._ptr)

    @property
    def bos(self) -> Optional[int]:
        """The id that begins a text, or None."""
        i = lib.tl_tokenizer_bos(self._ptr)
        return i if i >= 0 else None

    @property
    def eos(self) -> Optional[int]:
        """The id that ends a document, or None."""
        i = lib.tl_tokenizer_eos(self._ptr)
        return i if i >= 0 else None

    def encode(self, text: Union[str, bytes], *, special: bool = False) -> Any:
        """Ids of text (bytes: UTF-8), int32 (a NumPy array, or array.array without NumPy). special: names of special tokens in the
        text become those tokens; leave it off for text of strangers."""
        raw = _utf8(text)
        room = len(raw) + 16
        n = C.c_size_t()
        while True:
            out, address = ids_out(room)
            call("tl_tokenizer_encode", self._ptr, raw, len(raw), special, address, room, C.byref(n))
            if n.value <= room:
                return out[: n.value].copy() if np is not None else out[: n.value]
            room = n.value

    def decode(self, ids: Any) -> str:
        """Text of ids; special tokens are left out, broken UTF-8 becomes U+FFFD."""
        keep, address, count = ids_in(ids)
        n = C.c_size_t()
        room = 8 * count + 64
        while True:
            buf = C.create_string_buffer(room)
            call("tl_tokenizer_decode", self._ptr, address, count, buf, room, C.byref(n))
            if n.value <= room:
                return text_of(buf.raw[: n.value])
            room = n.value

    def __len__(self) -> int:
        return self.vocab

    def __repr__(self) -> str:
        return "<tilia.Tokenizer closed>" if self.closed else f"<tilia.Tokenizer of {self.vocab} ids>"


class ModelInfo(NamedTuple):
    """Shape of a model. Lengths in elements, weight_bytes in bytes."""

    type: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    context: int
    params: int
    params_no_embedding: int
    weight_bytes: int


def config_text(config: Union[str, Dict[str, Any]]) -> bytes:
    """A dict, "preset:NAME", "depth:N", JSON text, or the path of a config.json."""
    if isinstance(config, dict):
        return json.dumps(config).encode()
    if config.lstrip().startswith("{") or config.startswith(("preset:", "depth:")):
        return config.encode()
    path = os.path.join(config, "config.json") if os.path.isdir(config) else config
    with open(path, "rb") as f:
        return f.read()


class Model(Handle):
    """A Transformer: opened, created, trained, asked, saved.

    >>> import tilia
    >>> with tilia.Model.create("preset:tiny", seed=1) as m:
    ...     text = m.generate("Once", max_tokens=5)
    ...     m.info.layers, m.tokenizer.vocab
    (2, 257)
    """

    _engine: Engine
    _tokenizer: Optional[Tokenizer] = None

    @classmethod
    def open(cls, path: PathLike, *, engine: Optional[Engine] = None) -> "Model":
        """A run directory (its latest checkpoint), a checkpoint, a Hugging Face directory, a .safetensors or a .gguf
        file. Errors: OSError, ValueError (FormatError, ShapeError) with file, tensor and offset."""
        engine = engine or default_engine()
        out = C.c_void_p()
        with engine._lock:
            call("tl_model_open", engine._ptr, path_bytes(path), C.byref(out))
        return cls._take(engine, out.value)

    @classmethod
    def _take(cls, engine: Engine, ptr: Any) -> "Model":
        self = cls.__new__(cls)
        self._engine = engine
        self._own(ptr, lib.tl_model_close, engine)
        t = lib.tl_model_tokenizer(ptr)
        if t:
            self._tokenizer = Tokenizer.__new__(Tokenizer)
            self._tokenizer._engine = self._engine
            self._tokenizer._own(t, lambda ptr: None, self)
        return self

    @classmethod
    def create(
        cls,
        config: Union[str, Dict[str, Any]],
        tokenizer: Optional[Tokenizer] = None,
        *,
        seed: int = 0,
        engine: Optional[Engine] = None,
    ) -> "Model":
        """A new model with seeded initial weights. config: a dict as in config.json, its text or path, "preset:tiny",
        "depth:4". tokenizer: the vocabulary is its; without one a configuration of 257 ids gets the byte tokenizer.
        Errors: ValueError naming the key."""
        self = cls.__new__(cls)
        text = config_text(config)
        if tokenizer is not None:
            engine = engine or tokenizer._engine
        self._engine = engine or default_engine()
        out = C.c_void_p()
        self._tokenizer = tokenizer
        if tokenizer is None and text.startswith((b"preset:tiny", b"preset:demo", b"depth:")):
            self._tokenizer = Tokenizer.bytes(engine=self._engine)
        t = self._tokenizer
        with self._engine._lock:
            call("tl_model_create", self._engine._ptr, text, t._ptr if t else None, seed, C.byref(out))
        self._own(out.value, lib.tl_model_close, self._engine, *([t] if t else []))
        return self

    def save(self, path: PathLike) -> None:
        """Writes a Hugging Face directory: config.json, model.safetensors, tokenizer.json; whole or not at all."""
        with self._engine._lock:
            call("tl_model_save", self._ptr, path_bytes(path))

    @property
    def info(self) -> ModelInfo:
        """Its shape."""
        i = tl_model_info()
        lib.tl_model_info_get(self._ptr, C.byref(i))
        return ModelInfo(text_of(i.type or b""), *(getattr(i, f) for f in ModelInfo._fields[1:]))

    @property
    def tokenizer(self) -> Optional[Tokenizer]:
        """Its tokenizer, or None."""
        return self._tokenizer

    @property
    def engine(self) -> Engine:
        return self._engine

    # ---- tensors -----------------------------------------------------------------------------------------

    def _tensors(self) -> Dict[str, Any]:
        out = {}
        for i in range(lib.tl_model_tensors(self._ptr)):
            t = tl_model_tensor()
            call("tl_model_tensor_info", self._ptr, i, C.byref(t))
            out[text_of(t.name)] = (i, tuple(t.dim[: t.ndim]), t.data)
        return out

    def state_dict(self, *, copy: bool = True) -> Dict[str, Any]:
        """Weights as f32 NumPy arrays under the names of the Hugging Face files. copy=False: views of the model's own
        memory where it has that form (they keep the memory alive and see training; read-only)."""
        numpy = need_numpy()
        out: Dict[str, Any] = {}
        for name, (i, shape, data) in self._tensors().items():
            if not copy and data:
                out[name] = _view(self._ref, data, shape)  # type: ignore[arg-type]
                continue
            a = numpy.empty(shape, numpy.float32)
            call("tl_model_tensor_get", self._ptr, i, a.ctypes.data)
            out[name] = a
        return out

    def load_state_dict(self, tensors: Dict[str, Any], *, strict: bool = True) -> None:
        """Copies weights in, by the names of state_dict (a leading "model." or "transformer." may be missing or too
        much; buffers and a tied head are passed over). strict: every tensor must be there and known. Sessions forget
        what they had computed only when reset(). Errors: ValueError naming the tensor."""
        numpy = need_numpy()
        mine = self._tensors()
        known = _aliases(mine)
        left = set(mine)
        for key, value in tensors.items():
            name = known.get(key)
            if name is None:
                if strict and not _ignorable(key):
                    raise ValueError(f"{key}: the model has no such tensor")
                continue
            i, shape, _ = mine[name]
            a = numpy.ascontiguousarray(_to_numpy(value), dtype=numpy.float32)
            if a.shape != shape:
                raise ValueError(f"{key}: has shape {a.shape}, must be {shape}")
            with self._engine._lock:
                call("tl_model_tensor_set", self._ptr, i, a.ctypes.data)
            left.discard(name)
        if strict and left:
            raise ValueError(f"{sorted(left)[0]}: is missing" + (f", and {len(left) - 1} more" if len(left) > 1 else ""))

    # ---- text --------------------------------------------------------------------------------------------

    def session(self, **options: Any) -> "Session":
        """A Session of this model; options as there."""
        return Session(self, **options)

    def stream(self, prompt: str = "", **options: Any) -> Iterator[str]:
        """Pieces of text as they are made; options as of Session."""
        with Session(self, **options) as s:
            for piece in s.generate(prompt):
                if piece.text:
                    yield piece.text

    def generate(self, prompt: str = "", **options: Any) -> str:
        """The text that follows prompt; options as of Session."""
        return "".join(self.stream(prompt, **options))

    def __repr__(self) -> str:
        if self.closed:
            return "<tilia.Model closed>"
        i = self.info
        return f"<tilia.Model {i.type}, {i.layers} layers of {i.width}, {i.params} parameters>"


def _to_numpy(x: Any) -> Any:
    """float32 or float64 NumPy from anything, bf16 tensors too."""
    from .ops._array import Array, asarray

    a = asarray(x)
    return a.numpy() if isinstance(a, Array) else a


def _aliases(mine: Dict[str, Any]) -> Dict[str, str]:
    known = {n: n for n in mine}
    for n in mine:
        for prefix in ("model.", "transformer."):
            known.setdefault(n[len(prefix) :] if n.startswith(prefix) else prefix + n, n)
    return known


def _ignorable(key: str) -> bool:
    return key.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq", "lm_head.weight"))


def _view(ref: Ref, address: int, shape: tuple) -> Any:
    n = 1
    for d in shape:
        n *= d
    buffer = (C.c_float * n).from_address(address)
    keeper = _Pinned(ref)
    buffer._pinned = keeper  # the model's memory lives as long as the array
    a = need_numpy().frombuffer(buffer, np.float32).reshape(shape)
    a.flags.writeable = False
    return a


class _Pinned:
    """Holds a pointer of the library back from being freed."""

    def __init__(self, ref: Ref) -> None:
        self._ref = Ref(1, lambda ptr: None, [ref])


class Piece(NamedTuple):
    """A generated token. text: whole characters that became certain with it, may be empty; id: None on a last piece
    that is no token; logprob: of the token under the unchanged logits, nats; finish: why it ended ("eos", "stop",
    "length", "context"), None before the end."""

    text: str
    id: Optional[int]
    logprob: float
    finish: Optional[str]


class Session(Handle):
    """One sequence that grows: prompts and generated tokens over a cache of what was computed.

    max_tokens: to generate after each prompt (0: until the end or the context is full); context: positions to keep (0:
    the model's); temperature 0 is greedy; top_k, top_p, min_p, repeat_penalty, repeat_last: 0 is off (repeat_last: 64);
    stop: texts that end the generation and are not part of it; ignore_eos; no_cache recomputes everything;
    cache_dtype: "f32", "bf16", "f16", "q8_0"; cache_window: text without end, of which the last so many tokens are kept
    and the first cache_first.

    Ctrl-C is honoured between tokens. One thread at a time. Errors: ValueError (an unknown id, a prompt that does not
    fit), MemoryError.

    >>> import tilia
    >>> m = tilia.Model.create("preset:tiny", seed=1)
    >>> with tilia.Session(m, max_tokens=3, temperature=0) as s:
    ...     ids = [p.id for p in s.generate("abc") if p.id is not None]
    ...     s.rewind(4) <= 4, len(ids)
    (True, 3)
    """

    def __init__(
        self,
        model: Model,
        *,
        max_tokens: int = 0,
        context: int = 0,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 0.0,
        min_p: float = 0.0,
        repeat_penalty: float = 0.0,
        repeat_last: int = 0,
        seed: int = 0,
        stop: Union[str, Sequence[str]] = (),
        ignore_eos: bool = False,
        no_cache: bool = False,
        cache_dtype: Optional[str] = None,
        cache_window: int = 0,
        cache_first: int = 4,
    ) -> None:
        stops, n_stop = strings([stop] if isinstance(stop, str) else stop)
        o = tl_session_options(
            max_tokens=max_tokens,
            context=context,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            repeat_last=repeat_last,
            seed=seed,
            stop=stops,
            n_stop=n_stop,
            ignore_eos=ignore_eos,
            no_cache=no_cache,
            cache_dtype=_dtype(cache_dtype),
            cache_window=cache_window,
            cache_first=cache_first if cache_window else 0,
        )
        out = C.c_void_p()
        with model._engine._lock:
            call("tl_session_create", model._ptr, C.byref(o), C.byref(out))
        self._begin(model, out.value)

    def _begin(self, model: Model, ptr: Any) -> None:
        self._model = model
        self._lock = model._engine._lock
        self._piece = tl_piece()
        self._own(ptr, lib.tl_session_destroy, model)

    def feed(self, prompt: Union[str, Any]) -> "Session":
        """Appends text, or token ids, to what the session has seen."""
        if isinstance(prompt, (str, bytes)):
            raw = _utf8(prompt)
            call("tl_session_text", self._ptr, raw, len(raw))
        else:
            keep, address, n = ids_in(prompt)
            call("tl_session_ids", self._ptr, address, n)
        return self

    def next(self) -> Optional[Piece]:
        """One more token; None after the end. Errors: ValueError if a logit is not finite."""
        p = self._piece
        with self._lock:
            call("tl_session_next", self._ptr, C.byref(p))
            text = text_of(C.string_at(p.text, p.size)) if p.size else ""
        finish = FINISH[p.finish] if p.done else None
        if p.done and finish is None:
            return None
        return Piece(text, p.id if p.id >= 0 else None, p.logprob, finish)

    def __iter__(self) -> Iterator[Piece]:
        while True:
            piece = self.next()
            if piece is None:
                return
            yield piece
            if piece.finish:
                return

    def generate(self, prompt: Union[str, Any, None] = None) -> Iterator[Piece]:
        """Feeds prompt, then iterates over the pieces that follow."""
        if prompt is not None and (not isinstance(prompt, str) or prompt):
            self.feed(prompt)
        return iter(self)

    def logits(self) -> Any:
        """Logits (V) f32 of the last position, without sampling; a copy."""
        out = C.c_void_p()
        with self._lock:
            call("tl_session_logits", self._ptr, C.byref(out))
            return floats_copy(out.value, self._model.info.vocab)  # type: ignore[arg-type]

    @property
    def tokens(self) -> Any:
        """Every id of the sequence, prompt and generated, int32; a copy."""
        n = C.c_size_t()
        where = lib.tl_session_tokens(self._ptr, C.byref(n))
        out, address = ids_out(n.value)
        if n.value:
            C.memmove(address, where, 4 * n.value)
        return out

    @property
    def position(self) -> int:
        """Tokens seen."""
        return lib.tl_session_position(self._ptr)

    def rewind(self, n: int) -> int:
        """Goes back to n tokens if it can; answers how many there are then."""
        return lib.tl_session_rewind(self._ptr, n)

    def reset(self) -> None:
        """Forgets everything."""
        lib.tl_session_reset(self._ptr)

    def fork(self) -> "Session":
        """A second session that has seen the same and goes on by itself (the same seed: the same text).

        >>> import tilia
        >>> m = tilia.Model.create("preset:tiny", seed=1)
        >>> a = m.session(max_tokens=4); _ = a.feed("ab"); _ = a.next()
        >>> b = a.fork()
        >>> [p.id for p in a] == [p.id for p in b]
        True
        """
        out = C.c_void_p()
        with self._lock:
            call("tl_session_fork", self._ptr, C.byref(out))
        twin = Session.__new__(Session)
        twin._begin(self._model, out.value)
        return twin

    def save(self, path: PathLike) -> None:
        """Writes the ids of the sequence, as JSON; load computes the rest again."""
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"tilia_session": 1, "ids": [int(i) for i in self.tokens]}, f)

    def load(self, path: PathLike) -> "Session":
        """Replaces what the session has seen by what save wrote."""
        with open(path, encoding="utf-8") as f:
            state = json.load(f)
        if not isinstance(state, dict) or state.get("tilia_session") != 1:
            raise FormatError(f"{path}: is not a saved session", code="FORMAT", file=os.fspath(path))
        self.reset()
        return self.feed(state["ids"]) if state["ids"] else self


def _dtype(name: Optional[str]) -> int:
    if name is None:
        return 0
    number = lib.tl_dtype_parse(str(name).encode())
    if not number:
        raise ValueError(f'no number type "{name}"')
    return number
