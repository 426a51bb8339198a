"""Trainer, Dataset, plan."""

from __future__ import annotations

import ctypes as C
import os
from typing import Any, Dict, Iterable, Iterator, NamedTuple, Optional, Union

from ._arrays import ids_in, ids_out, np
from ._engine import Engine, default_engine
from ._handle import Handle
from ._lib import call, lib, path_bytes, strings, tl_metrics, tl_model_costs, tl_trainer_info, tl_trainer_options
from ._text import Model, PathLike, Tokenizer, _dtype, config_text

SCHEDULES = ("cosine", "linear", "constant", "wsd")


def schedule_number(name: str) -> int:
    if name not in SCHEDULES:
        raise ValueError(f'schedule is "{name}"; it can be {", ".join(SCHEDULES)}')
    return SCHEDULES.index(name)


RECOMPUTE = ("none", "light", "wide", "full")


def recompute_level(level: Union[bool, str]) -> int:
    name = ("full" if level else "none") if isinstance(level, bool) else level
    if name not in RECOMPUTE:
        raise ValueError(f'recompute is "{name}"; it can be {", ".join(RECOMPUTE)}, False or True')
    return RECOMPUTE.index(name)


class Batch(NamedTuple):
    """Arrays (rows, context) int32: inputs, targets (-1: nothing to predict), position in the document, index in the
    row where the document starts; and how many targets count."""

    input: Any
    target: Any
    position: Any
    document: Any
    labels: int


class Dataset(Handle):
    """Documents as token ids. Batch number n is a function of (seed, n) alone: any step can be had at once, every
    epoch sees everything once.

    >>> import tilia
    >>> d = tilia.Dataset(tilia.Tokenizer.bytes())
    >>> d.add("the first document").add("and a second one")
    <tilia.Dataset of 2 documents, 36 tokens>
    >>> d.shape(rows=2, context=8, seed=1).batch(0).input.shape
    (2, 8)
    """

    def __init__(
        self,
        tokenizer: Optional[Tokenizer] = None,
        *,
        vocab: int = 0,
        eos: Optional[int] = None,
        engine: Optional[Engine] = None,
    ) -> None:
        engine = engine or (tokenizer._engine if tokenizer else default_engine())
        out = C.c_void_p()
        t = tokenizer._ptr if tokenizer else None
        call("tl_dataset_create", engine._ptr, t, vocab, -1 if eos is None else eos, C.byref(out))
        self._own(out.value, lib.tl_dataset_close, engine, *([tokenizer] if tokenizer else []))
        self._rows = self._context = 0

    def add(self, document: Union[str, Any]) -> "Dataset":
        """One document: text, or token ids."""
        if isinstance(document, str):
            raw = document.encode("utf-8", "surrogatepass")
            call("tl_dataset_add_text", self._ptr, raw, len(raw))
        else:
            keep, address, n = ids_in(document)
            call("tl_dataset_add_ids", self._ptr, address, n)
        return self

    def add_files(self, *paths: PathLike, separator: Optional[str] = None) -> "Dataset":
        """Documents of files and folders: text, JSON lines (field "text"), also .gz and .zst. separator: between the
        documents of a text file. Errors: OSError, ValueError with file and line."""
        array, n = strings([path_bytes(p) for p in paths])
        call("tl_dataset_add_files", self._ptr, array, n, separator.encode() if separator else None)
        return self

    def shape(self, rows: int, context: int, *, packed: bool = False, seed: int = 0) -> "Dataset":
        """How batches are cut. packed: whole documents to a row, as they fit; else windows over all of the text."""
        call("tl_dataset_shape", self._ptr, rows, context, packed, seed)
        self._rows, self._context = rows, context
        return self

    def batch(self, step: int) -> Batch:
        """Batch number step, from 0."""
        n = self._rows * self._context
        arrays = [ids_out(n) for _ in range(4)]
        labels = C.c_int64()
        call("tl_dataset_batch", self._ptr, step, *(a for _, a in arrays), C.byref(labels))
        if np is None:
            return Batch(*(a for a, _ in arrays), labels.value)
        return Batch(*(a.reshape(self._rows, self._context) for a, _ in arrays), labels.value)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return lib.tl_dataset_steps(self._ptr)

    @property
    def tokens(self) -> int:
        return lib.tl_dataset_tokens(self._ptr)

    @property
    def documents(self) -> int:
        return lib.tl_dataset_documents(self._ptr)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        """One epoch."""
        for step in range(self.steps):
            yield self.batch(step)

    def __repr__(self) -> str:
        if self.closed:
            return "<tilia.Dataset closed>"
        return f"<tilia.Dataset of {self.documents} documents, {self.tokens} tokens>"


class Metrics(NamedTuple):
    """One step of training. loss: mean nats per token; norm: of the gradient before clipping; seconds: of the step;
    tokens: counted by the loss; flops: of the step, by the plan."""

    step: int
    loss: float
    norm: float
    lr: float
    seconds: float
    tokens: int
    flops: float


class Trainer(Handle):
    """Trains a model, one optimizer step (AdamW) at a time.

    steps: length of the schedule; rows: sequences a step; micro_rows: computed at a time (0: all); context: tokens a
    sequence (0: the model's); segment: tokens of a sequence computed at a time, with the same gradients and the memory
    of one segment (0: all; for models without attention over all tokens); dtype: "f32" or "bf16"; lr, min_lr; schedule: "cosine", "linear", "constant", "wsd";
    beta1, beta2, eps, weight_decay, clip: None for the defaults 0.9, 0.95, 1e-8, 0.1, 1.0; recompute: what the
    backward pass computes again to save memory, "none" (False), "light", "wide" or "full" (True); packed: rows are packed documents whose borders attention respects.

    Iterating runs to the end of the schedule, a Metrics each step; Ctrl-C is honoured between steps, and the trainer
    can go on afterwards.

    >>> import tilia
    >>> m = tilia.Model.create("preset:tiny", seed=1)
    >>> t = tilia.Trainer(m, steps=2, rows=2, context=16, lr=1e-3)
    >>> _ = t.add_text("hello world, " * 20)
    >>> [x.step for x in t]
    [1, 2]

    Rows of segments have the gradients of whole rows:

    >>> def norm(segment):
    ...     m = tilia.Model.create("preset:flash-char-cpu", seed=1)
    ...     t = tilia.Trainer(m, steps=1, context=128, segment=segment)
    ...     return t.step([list(range(64)) * 2 + [0]]).norm
    >>> abs(norm(64) / norm(0) - 1) < 1e-4  # of the gradient
    True
    """

    def __init__(
        self,
        model: Model,
        *,
        steps: int = 0,
        rows: int = 1,
        micro_rows: int = 0,
        context: int = 0,
        segment: int = 0,
        dtype: Optional[str] = None,
        lr: float = 1e-3,
        min_lr: float = 0.0,
        beta1: Optional[float] = None,
        beta2: Optional[float] = None,
        eps: Optional[float] = None,
        weight_decay: Optional[float] = None,
        clip: Optional[float] = None,
        warmup: int = 0,
        schedule: str = "cosine",
        recompute: Union[bool, str] = False,
        packed: bool = False,
        seed: int = 0,
        data: Optional[Dataset] = None,
    ) -> None:
        def given(x: Optional[float]) -> float:  # C: 0 is the default, negative is zero
            return 0.0 if x is None else -1.0 if x == 0 else x

        o = tl_trainer_options(
            steps=steps,
            batch_rows=rows,
            micro_rows=micro_rows,
            context=context,
            segment=segment,
            dtype=_dtype(dtype),
            lr=lr,
            min_lr=min_lr,
            beta1=given(beta1),
            beta2=given(beta2),
            eps=given(eps),
            decay=given(weight_decay),
            clip=given(clip),
            warmup=warmup,
            schedule=schedule_number(schedule),
            recompute=recompute_level(recompute),
            packed=packed,
            seed=seed,
        )
        out = C.c_void_p()
        with model._engine._lock:
            call("tl_trainer_create", model._ptr, C.byref(o), C.byref(out))
        self._take(model, out.value)
        if data is not None:
            self.use(data)

    def _take(self, model: Model, ptr: Any) -> None:
        self._model, self._lock = model, model._engine._lock
        self._own(ptr, lib.tl_trainer_destroy, model)
        i = tl_trainer_info()
        lib.tl_trainer_info_get(ptr, C.byref(i))
        self.steps, self.rows, self.context, self._done = i.steps, i.batch_rows, i.context, i.step
        self._metrics = tl_metrics()

    @classmethod
    def resume(cls, run: PathLike, *, steps: int = 0, engine: Optional[Engine] = None) -> "Trainer":
        """Goes on from the newest whole checkpoint of a run, of ``save`` or of ``tilia train``; ``.model`` is its model.
        Give it the same text, data or ids again and the steps that follow have the bits of a training that never
        stopped. steps: another length of the schedule. Errors: OSError (FileNotFoundError: no checkpoint), ValueError.

        >>> import tempfile, tilia
        >>> t = tilia.Trainer(tilia.Model.create("preset:tiny", seed=1), steps=4, context=16).add_text("hello " * 20)
        >>> with tempfile.TemporaryDirectory() as run:
        ...     first = t.step()
        ...     t.save(run)
        ...     again = tilia.Trainer.resume(run).add_text("hello " * 20)
        >>> again.step().loss == t.step().loss
        True
        """
        engine = engine or default_engine()
        model, out = C.c_void_p(), C.c_void_p()
        o = tl_trainer_options(steps=steps)
        with engine._lock:
            call("tl_trainer_resume", engine._ptr, path_bytes(run), C.byref(o), C.byref(model), C.byref(out))
        self = cls.__new__(cls)
        self._take(Model._take(engine, model.value), out.value)
        return self

    def save(self, run: PathLike, *, keep: int = 0) -> None:
        """A checkpoint in the directory run, which is a Hugging Face directory itself; keep: how many of the newest
        stay (0: all). A kill at any moment leaves the last whole one. Errors: OSError."""
        with self._lock:
            call("tl_trainer_save", self._ptr, path_bytes(run), keep)

    @property
    def model(self) -> Model:
        """What is trained."""
        return self._model

    def add_text(self, text: str) -> "Trainer":
        """A document to train on."""
        raw = text.encode("utf-8", "surrogatepass")
        call("tl_trainer_add_text", self._ptr, raw, len(raw))
        return self

    def use(self, data: Dataset) -> "Trainer":
        """Takes batches from data from now on. Nothing can be added to data while it is used."""
        call("tl_trainer_use", self._ptr, data._ptr)
        self._ref.uses(data._ref)  # type: ignore[union-attr, arg-type]
        data._children.add(self)
        return self

    def step(self, ids: Any = None) -> Metrics:
        """One step: on the added text or the dataset, or on the caller's ids (rows, context + 1), of whose rows the
        last ``context`` are predicted. Errors: NumericError (the weights are then as before), ShapeError."""
        m = self._metrics
        if ids is None:
            with self._lock:
                call("tl_trainer_step", self._ptr, C.byref(m))
        else:
            keep, address, n = ids_in(ids)
            if n != self.rows * (self.context + 1):
                raise ValueError(f"a batch has {n} ids, must have {self.rows} x {self.context + 1}")
            with self._lock:
                call("tl_trainer_step_ids", self._ptr, address, C.byref(m))
        self._done = m.step
        return Metrics(m.step, m.loss, m.norm, m.lr, m.seconds, m.tokens, m.flops)

    def __iter__(self) -> Iterator[Metrics]:
        while self._done < self.steps:
            yield self.step()

    def run(self, progress: Any = None, batches: Optional[Iterable[Any]] = None) -> Optional[Metrics]:
        """Runs to the end of the schedule, or over ``batches`` of ids; returns the last metrics. progress: a function
        of Metrics (False stops), or a bar with tqdm's update and set_postfix: ``t.run(tqdm(total=t.steps))``."""
        last = None
        for last in iter(self) if batches is None else map(self.step, batches):
            if progress is None:
                continue
            if hasattr(progress, "update"):
                progress.update(1)
                if hasattr(progress, "set_postfix"):
                    progress.set_postfix(loss=f"{last.loss:.4f}", lr=f"{last.lr:.2e}")
            elif progress(last) is False:
                break
        return last

    def eval(self, text: str) -> float:
        """Mean nats per token of text under the model as it is now."""
        raw = text.encode("utf-8", "surrogatepass")
        loss = C.c_double()
        with self._lock:
            call("tl_trainer_eval", self._ptr, raw, len(raw), C.byref(loss))
        return loss.value

    @property
    def bytes(self) -> int:
        """Bytes that training holds, as planned before anything was allocated."""
        return lib.tl_trainer_bytes(self._ptr)


class Plan(NamedTuple):
    """Costs of one batch. FLOPs count attention causal-exact; memory in bytes."""

    params: int
    params_no_embedding: int
    forward_flops: float
    backward_flops: float
    weights: int
    gradients: int
    optimizer: int
    activations: int
    cache_per_token: int

    @property
    def flops(self) -> float:
        return self.forward_flops + self.backward_flops

    @property
    def memory(self) -> int:
        """Bytes held: weights, gradients, optimizer, activations."""
        return self.weights + self.gradients + self.optimizer + self.activations


def plan(
    config: Union[str, Dict[str, Any], "os.PathLike[str]"],
    *,
    rows: int = 1,
    context: int = 0,
    dtype: str = "f32",
    train: bool = False,
    recompute: Union[bool, str] = False,
    engine: Optional[Engine] = None,
) -> Plan:
    """What ``rows`` sequences of ``context`` tokens (0: the model's) cost, before a model is made: a forward pass, or a
    training step. config: as of Model.create, or a model's directory. Nothing is allocated.

    >>> import tilia
    >>> tilia.plan("preset:gpt2", rows=1, context=1024).params
    124439808
    """
    engine = engine or default_engine()
    text = config_text(config if isinstance(config, (str, dict)) else os.fspath(config))
    c = tl_model_costs()
    with engine._lock:
        call("tl_model_cost", engine._ptr, text, rows, context, _dtype(dtype), train, recompute_level(recompute), C.byref(c))
    return Plan(*(getattr(c, f) for f in Plan._fields))
