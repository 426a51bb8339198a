"""The shared library: found, loaded, its structs and functions declared. Nothing else here knows ctypes' details of C.

Structs mirror include/tilia.h and include/tilia/*.h; tests/test_layout.py compares their sizes and offsets with a
compiler's. Calls through ``CDLL`` release the interpreter's lock."""

from __future__ import annotations

import ctypes as C
import ctypes.util
import os
import sys
from ctypes import POINTER as P

from ._errors import CODES, Error

DIMS, OP_INS, OP_OUTS, ATTR_MAX = 4, 12, 8, 96


class tl_error(C.Structure):
    _fields_ = [
        ("code", C.c_int),
        ("text", C.c_char * 400),
        ("file", C.c_char * 240),
        ("tensor", C.c_char * 120),
        ("offset", C.c_int64),
        ("line", C.c_int64),
    ]


LOG_FN = C.CFUNCTYPE(None, C.c_void_p, C.c_int, C.c_char_p)


class tl_engine_options(C.Structure):
    _fields_ = [
        ("allocator", C.c_void_p),
        ("log", LOG_FN),
        ("log_user", C.c_void_p),
        ("log_level", C.c_int),
        ("threads", C.c_int),
        ("isa", C.c_char_p),
        ("device", C.c_char_p),
    ]


class tl_model_info(C.Structure):
    _fields_ = [
        (n, C.c_int64)
        for n in "layers width heads kv_heads head_dim mlp vocab context params params_no_embedding".split()
    ] + [("weight_bytes", C.c_size_t), ("type", C.c_char_p)]


class tl_model_tensor(C.Structure):
    _fields_ = [("name", C.c_char * 128), ("ndim", C.c_int32), ("dim", C.c_int64 * 2), ("data", C.c_void_p)]


TOKENIZER_PROGRESS = C.CFUNCTYPE(C.c_bool, C.c_void_p, C.c_char_p, C.c_uint64, C.c_uint64)


class tl_tokenizer_train_options(C.Structure):
    _fields_ = [
        ("vocab", C.c_int64),
        ("min_count", C.c_uint64),
        ("split", C.c_char_p),
        ("special", P(C.c_char_p)),
        ("n_special", C.c_size_t),
        ("files", P(C.c_char_p)),
        ("n_files", C.c_size_t),
        ("progress", TOKENIZER_PROGRESS),
        ("user", C.c_void_p),
    ]


class tl_session_options(C.Structure):
    _fields_ = [
        ("max_tokens", C.c_int64),
        ("context", C.c_int64),
        ("temperature", C.c_float),
        ("top_k", C.c_int32),
        ("top_p", C.c_float),
        ("min_p", C.c_float),
        ("repeat_penalty", C.c_float),
        ("repeat_last", C.c_int32),
        ("seed", C.c_uint64),
        ("stop", P(C.c_char_p)),
        ("n_stop", C.c_size_t),
        ("ignore_eos", C.c_bool),
        ("no_cache", C.c_bool),
        ("cache_dtype", C.c_int),
        ("cache_window", C.c_int64),
        ("cache_first", C.c_int64),
    ]


class tl_piece(C.Structure):
    _fields_ = [
        ("text", C.c_void_p),
        ("size", C.c_size_t),
        ("id", C.c_int32),
        ("logprob", C.c_float),
        ("done", C.c_bool),
        ("finish", C.c_int),
    ]


class tl_trainer_info(C.Structure):
    _fields_ = [(n, C.c_int64) for n in ("step", "steps", "batch_rows", "context", "tokens")]


class tl_metrics(C.Structure):
    _fields_ = [
        ("step", C.c_int64),
        ("loss", C.c_double),
        ("norm", C.c_double),
        ("lr", C.c_double),
        ("seconds", C.c_double),
        ("tokens", C.c_int64),
        ("flops", C.c_double),
        ("balance", C.c_double),
    ]


TRAINER_PROGRESS = C.CFUNCTYPE(C.c_bool, C.c_void_p, P(tl_metrics))


class tl_trainer_options(C.Structure):
    _fields_ = [
        ("steps", C.c_int64),
        ("batch_rows", C.c_int64),
        ("micro_rows", C.c_int64),
        ("context", C.c_int64),
        ("segment", C.c_int64),
        ("dtype", C.c_int),
        ("lr", C.c_float),
        ("min_lr", C.c_float),
        ("beta1", C.c_float),
        ("beta2", C.c_float),
        ("eps", C.c_float),
        ("decay", C.c_float),
        ("clip", C.c_float),
        ("warmup", C.c_int64),
        ("schedule", C.c_int),
        ("recompute", C.c_int),
        ("packed", C.c_bool),
        ("seed", C.c_uint64),
        ("progress", TRAINER_PROGRESS),
        ("user", C.c_void_p),
    ]


class tl_model_costs(C.Structure):
    _fields_ = [
        ("params", C.c_int64),
        ("params_no_embedding", C.c_int64),
        ("forward_flops", C.c_double),
        ("backward_flops", C.c_double),
        ("weights", C.c_size_t),
        ("gradients", C.c_size_t),
        ("optimizer", C.c_size_t),
        ("activations", C.c_size_t),
        ("cache_per_token", C.c_size_t),
        ("params_active", C.c_int64),
    ]


class tl_desc(C.Structure):
    _fields_ = [("dtype", C.c_int), ("ndim", C.c_int32), ("dim", C.c_int64 * DIMS), ("stride", C.c_int64 * DIMS)]


class tl_arg(C.Structure):
    _fields_ = [("data", C.c_void_p), ("d", tl_desc)]


class tl_cost(C.Structure):
    _fields_ = [(n, C.c_double) for n in ("flops", "special", "bytes_read", "bytes_written")]


class tl_op_def(C.Structure):
    _fields_ = [
        ("name", C.c_char_p),
        ("id", C.c_int32),
        ("n_in", C.c_int32),
        ("n_out", C.c_int32),
        ("save", C.c_uint32),
        ("acc", C.c_uint32),
        ("flags", C.c_uint32),
        ("attr_size", C.c_size_t),
    ]  # functions follow


class tl_attr_field(C.Structure):
    _fields_ = [("name", C.c_char_p), ("type", C.c_char), ("offset", C.c_int32), ("count", C.c_int32)]


class tl_plan_info(C.Structure):
    _fields_ = [(n, C.c_size_t) for n in "arena_bytes scratch_bytes bound_bytes tensors steps".split()] + [
        ("cost", tl_cost)
    ]


class tl_module_options(C.Structure):
    _fields_ = [
        ("rows", C.c_int64),
        ("context", C.c_int64),
        ("first", C.c_int64),
        ("blocks", C.c_int64),
        ("packed", C.c_bool),
    ]


class tl_run_info(C.Structure):
    _fields_ = [("seed", C.c_uint64), ("step", C.c_uint64), ("row0", C.c_int64)]


V, S, E = C.c_void_p, C.c_int, P(tl_error)
I64, I32, SZ, STR = C.c_int64, C.c_int32, C.c_size_t, C.c_char_p

# name: result, arguments
PROTOTYPES = {
    "tl_version": (STR,),
    "tl_status_text": (STR, S),
    "tl_error_text": (STR, E, V, SZ),
    "tl_dtype_name": (STR, S),
    "tl_dtype_parse": (S, STR),
    "tl_engine_create": (S, P(tl_engine_options), P(V), E),
    "tl_engine_destroy": (None, V),
    "tl_engine_threads": (S, V),
    "tl_engine_isa": (STR, V),
    "tl_tokenizer_open": (S, V, STR, P(V), E),
    "tl_tokenizer_bytes": (S, V, P(V), E),
    "tl_tokenizer_chars": (S, V, STR, SZ, P(V), E),
    "tl_tokenizer_train": (S, V, P(tl_tokenizer_train_options), STR, SZ, P(V), E),
    "tl_tokenizer_save": (S, V, STR, E),
    "tl_tokenizer_close": (None, V),
    "tl_tokenizer_vocab": (I64, V),
    "tl_tokenizer_bos": (I32, V),
    "tl_tokenizer_eos": (I32, V),
    "tl_tokenizer_encode": (S, V, STR, SZ, C.c_bool, V, SZ, P(SZ), E),
    "tl_tokenizer_decode": (S, V, V, SZ, V, SZ, P(SZ), E),
    "tl_model_open": (S, V, STR, P(V), E),
    "tl_model_create": (S, V, STR, V, C.c_uint64, P(V), E),
    "tl_model_save": (S, V, STR, E),
    "tl_model_close": (None, V),
    "tl_model_info_get": (None, V, P(tl_model_info)),
    "tl_model_tokenizer": (V, V),
    "tl_model_tensors": (SZ, V),
    "tl_model_tensor_info": (S, V, SZ, P(tl_model_tensor), E),
    "tl_model_tensor_get": (S, V, SZ, V, E),
    "tl_model_tensor_set": (S, V, SZ, V, E),
    "tl_session_create": (S, V, P(tl_session_options), P(V), E),
    "tl_session_destroy": (None, V),
    "tl_session_text": (S, V, STR, SZ, E),
    "tl_session_ids": (S, V, V, SZ, E),
    "tl_session_next": (S, V, P(tl_piece), E),
    "tl_session_logits": (S, V, P(V), E),
    "tl_session_position": (I64, V),
    "tl_session_rewind": (I64, V, I64),
    "tl_session_reset": (None, V),
    "tl_session_tokens": (V, V, P(SZ)),
    "tl_session_fork": (S, V, P(V), E),
    "tl_trainer_create": (S, V, P(tl_trainer_options), P(V), E),
    "tl_trainer_destroy": (None, V),
    "tl_trainer_add_text": (S, V, STR, SZ, E),
    "tl_trainer_step": (S, V, P(tl_metrics), E),
    "tl_trainer_step_ids": (S, V, V, P(tl_metrics), E),
    "tl_trainer_eval": (S, V, STR, SZ, P(C.c_double), E),
    "tl_trainer_bytes": (SZ, V),
    "tl_trainer_save": (S, V, STR, C.c_int64, E),
    "tl_trainer_resume": (S, V, STR, P(tl_trainer_options), P(V), P(V), E),
    "tl_trainer_info_get": (None, V, P(tl_trainer_info)),
    "tl_trainer_use": (S, V, V, E),
    "tl_schedule_lr": (C.c_double, S, C.c_double, C.c_double, I64, I64, I64),
    "tl_dataset_create": (S, V, V, I64, I32, P(V), E),
    "tl_dataset_close": (None, V),
    "tl_dataset_add_text": (S, V, STR, SZ, E),
    "tl_dataset_add_ids": (S, V, V, SZ, E),
    "tl_dataset_add_files": (S, V, P(STR), SZ, STR, E),
    "tl_dataset_tokens": (I64, V),
    "tl_dataset_documents": (I64, V),
    "tl_dataset_shape": (S, V, I64, I64, C.c_bool, C.c_uint64, E),
    "tl_dataset_steps": (I64, V),
    "tl_dataset_batch": (S, V, I64, V, V, V, V, P(I64), E),
    "tl_model_cost": (S, V, STR, I64, I64, S, C.c_bool, C.c_int, P(tl_model_costs), E),
    "tl_module_create": (S, V, P(tl_module_options), P(V), E),
    "tl_module_destroy": (None, V),
    "tl_module_documents": (S, V, V, V, E),
    "tl_module_run": (S, V, V, V, E),
    "tl_module_vjp": (S, V, V, V, V, V, E),
    "tl_module_grad": (S, V, SZ, V, E),
    "tl_op_find": (P(tl_op_def), STR),
    "tl_op_at": (P(tl_op_def), SZ),
    "tl_op_attr_fields": (P(tl_attr_field), V, P(SZ)),
    "tl_eval": (S, V, V, V, V, S, V, S, C.c_uint32, E),
    "tl_infer": (S, V, V, V, S, V, E),
    "tl_graph_create": (S, V, P(V)),
    "tl_graph_destroy": (None, V),
    "tl_graph_status": (S, V, E),
    "tl_input": (V, V, STR, S, S, V),
    "tl_output": (None, V, V, STR),
    "tl_apply": (V, V, V, V, V, S, V, V, S),
    "tl_graph_vjp": (None, V, V, V, V, S, V),
    "tl_tensor_desc": (P(tl_desc), V),
    "tl_plan_create": (S, V, C.c_bool, P(V), E),
    "tl_plan_destroy": (None, V),
    "tl_plan_info_get": (None, V, P(tl_plan_info)),
    "tl_plan_bind": (S, V, V, V),
    "tl_plan_data": (V, V, V),
    "tl_plan_run_info": (None, V, P(tl_run_info)),
    "tl_plan_run": (S, V),
}


def _candidates():
    here = os.path.dirname(os.path.abspath(__file__))
    own = os.environ.get("TILIA_LIBRARY")
    if own:
        yield own
        return
    for name in ("libtilia.so", "libtilia.so.0", "libtilia.dylib"):
        yield os.path.join(here, name)
    found = ctypes.util.find_library("tilia")
    if found:
        yield found


def _load() -> C.CDLL:
    tried = []
    for path in _candidates():
        if os.sep in path and not os.path.exists(path):
            tried.append(path + ": no such file")
            continue
        try:
            lib = C.CDLL(path)
        except OSError as e:
            tried.append(str(e))
            continue
        for name, (result, *args) in PROTOTYPES.items():
            f = getattr(lib, name, None)
            if f is None:
                raise ImportError(f"{path} has no {name}: it is another version than this package")
            f.restype, f.argtypes = result, args
        return lib
    raise ImportError("libtilia was not found (TILIA_LIBRARY may name it): " + "; ".join(tried))


lib = _load()


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def error(err: tl_error, status: int | None = None) -> Error:
    """The exception of a filled tl_error."""
    number = err.code if err.code else (status or -18)
    name, cls = CODES.get(number, ("INTERNAL", CODES[-18][1]))
    if err.code:
        buf = C.create_string_buffer(1024)
        lib.tl_error_text(C.byref(err), buf, len(buf))
        message, text = text_of(buf.value), text_of(err.text)
    else:
        message = text = text_of(lib.tl_status_text(number))
    e = cls(message)
    e.code, e.text = name, text
    e.file = text_of(err.file) or None
    e.tensor = text_of(err.tensor) or None
    e.offset = err.offset if err.code and err.offset >= 0 else None
    e.line = err.line or None
    return e


def call(name: str, *args):
    """Calls a function whose last parameter is tl_error*; raises what it says."""
    err = tl_error()
    status = getattr(lib, name)(*args, C.byref(err))
    if status:
        raise error(err, status)


def path_bytes(path) -> bytes:
    return os.fsencode(os.fspath(path))


def strings(items) -> tuple:
    """A char*[] and its length; keeps the bytes alive with the array."""
    raw = [s if isinstance(s, bytes) else str(s).encode() for s in items]
    return (C.c_char_p * len(raw))(*raw) if raw else None, len(raw)


if sys.byteorder != "little":
    raise ImportError("tilia runs on little-endian machines only")
