#!/usr/bin/env python3
"""tests/format/hostile: files that break one rule of a format each, beside what the reader has to say about them.

    python tools/vectors/hostile.py tests/format/hostile

NAME.safetensors, NAME.gguf, NAME.config.json, NAME.generation.json, NAME.index (a directory), NAME.model.gguf and
NAME.model (a directory) whose container is fine and whose model is not; each with NAME.EXT.expected: the number of the
error, and words of its message. Numbers: include/tilia/status.def."""
import json
import shutil
import struct
import sys
from pathlib import Path

root = Path(sys.argv[1])


def codes():
    import re
    text = (Path(__file__).resolve().parents[2] / "include" / "tilia" / "status.def").read_text()
    return {m[0]: int(m[1]) for m in re.findall(r"\((?:TL_)?(\w+),\s*(-?\d+)", text)}


CODE = codes()


def put(name, data, status, words):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    (root / (name + ".expected")).write_text(f"{CODE[status]} {words}\n")


# ---- safetensors ---------------------------------------------------------------------------------------------------


def st(header, data=b"", claim=None):
    header = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(header) if claim is None else claim) + header + data


def entry(dtype="F32", shape="[1]", a=0, b=4):
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{a},{b}]}}'


def safetensors():
    four, eight = bytes(4), bytes(8)
    one = '{"a":' + entry() + "}"
    rows = {
        "01_seven_bytes": (b"\x02\0\0\0\0\0\0", "too few"),
        "02_header_100000001": (st("{}", claim=100000001), "too large"),
        "02_header_2_to_63": (st("{}", claim=2**63 - 1), "too large"),
        "03_header_past_end": (st("{}", claim=3), "behind the end of the file"),
        "04_not_utf8": (st(b'{"\xff\xfe":' + entry().encode() + b"}", four), ""),
        "04_empty": (st(""), "does not begin with {"),
        "04_space_first": (st(" {}"), "does not begin with {"),
        "04_array": (st("[]"), "does not begin with {"),
        "04_tab_behind": (st("{}\t"), "other than spaces"),
        "04_text_behind": (st("{}x"), "other than spaces"),
        "04_two_objects": (st("{}{}"), ""),
        "05_no_offsets": (st('{"a":{"dtype":"F32","shape":[1]}}', four), "exactly dtype, shape and data_offsets"),
        "05_one_key_more": (st('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}', four), "exactly dtype"),
        "05_entry_a_number": (st('{"a":3}'), "not an object"),
        "05_dtype_a_number": (st('{"a":{"dtype":3,"shape":[1],"data_offsets":[0,4]}}', four), "not a string"),
        "05_shape_a_number": (st('{"a":' + entry(shape="1") + "}", four), "not an array"),
        "05_dimension_real": (st('{"a":' + entry(shape="[1.0]") + "}", four), "not a non-negative integer"),
        "05_dimension_exponent": (st('{"a":' + entry(shape="[1e0]") + "}", four), "not a non-negative integer"),
        "05_dimension_negative": (st('{"a":' + entry(shape="[-1]") + "}", four), "not a non-negative integer"),
        "05_dimension_2_to_70": (st('{"a":' + entry(shape=f"[{2**70}]") + "}", four), ""),
        "05_offset_real": (st('{"a":' + entry(b="4.0") + "}", four), "two non-negative integers"),
        "05_offset_negative": (st('{"a":' + entry(a=-4, b=0) + "}", four), "two non-negative integers"),
        "05_three_offsets": (st('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}', four), "not two integers"),
        "06_metadata_number": (st('{"__metadata__":{"a":1}}'), "not a string"),
        "06_metadata_nested": (st('{"__metadata__":{"a":{"b":"c"}}}'), "not a string"),
        "06_metadata_array": (st('{"__metadata__":[]}'), "not an object"),
        "07_twin_names": (st('{"a":' + entry() + ',"a":' + entry(a=4, b=8) + "}", eight), "duplicate"),
        "07_twin_metadata": (st('{"__metadata__":{"a":"1","a":"2"}}'), "duplicate"),
        "07_twin_dtype": (st('{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', four), "duplicate"),
        "08_first_not_at_0": (st('{"a":' + entry(a=4, b=8) + "}", eight), "hole"),
        "08_hole": (st('{"a":' + entry() + ',"b":' + entry(a=8, b=12) + "}", bytes(12)), "hole"),
        "08_overlap": (st('{"a":' + entry() + ',"b":' + entry(a=2, b=6) + "}", bytes(6)), "overlaps"),
        "08_same_bytes": (st('{"a":' + entry() + ',"b":' + entry() + "}", four), "overlaps"),
        "08_end_before_begin": (st('{"a":' + entry(a=4, b=0) + "}", four), "ends before it begins"),
        "09_shape_wraps": (st('{"a":' + entry(shape="[4611686018427387904,4]") + "}", four), "overflows"),
        "09_zero_hides_a_wrap": (st('{"a":' + entry(shape="[4611686018427387904,4,0]", b=0) + "}"), "overflows"),
        "09_bits_wrap": (st('{"a":' + entry(shape="[1152921504606846976]") + "}", four), "overflows"),
        "09_half_a_byte": (st('{"a":' + entry("F4", "[3]", 0, 2) + "}", b"\0\0"), "whole number of bytes"),
        "10_size_too_small": (st('{"a":' + entry(shape="[2]") + "}", four), "disagree about the size"),
        "10_size_too_large": (st('{"a":' + entry(b=8) + "}", eight), "disagree about the size"),
        "10_past_end": (st('{"a":' + entry(shape="[2]", b=8) + "}", four), "behind the end of the file"),
        "11_bytes_behind": (st(one, bytes(5)), "1 bytes behind the last tensor"),
        "11_zip_behind": (st(one, four + b"PK\x05\x06" + bytes(18)), "22 bytes behind the last tensor"),
        "13_unknown_type": (st('{"a":' + entry("F31") + "}", four), "not one of the format's types"),
        "13_small_letters": (st('{"a":' + entry("f32") + "}", four), "not one of the format's types"),
        "nine_dimensions": (st('{"a":' + entry(shape="[1,1,1,1,1,1,1,1,1]") + "}", four), "more than 8"),
        "deep_json": (st('{"a":' * 3000 + "1" + "}" * 3000), "depth"),
    }
    for name, (data, words) in rows.items():
        put(name + ".safetensors", data, "LIMIT" if "deep" in name else "FORMAT", words)


def index():
    rows = {
        "15_dot_dot": ({"a": "../1.safetensors"}, "FORMAT", "plain file name"),
        "15_absolute": ({"a": "/etc/passwd"}, "FORMAT", "plain file name"),
        "15_empty_name": ({"a": ""}, "FORMAT", "plain file name"),
        "15_hidden": ({"a": ".1.safetensors"}, "FORMAT", "plain file name"),
        "15_a_number": ({"a": 1}, "FORMAT", "plain file name"),
        "15_missing_shard": ({"a": "3.safetensors"}, "NOTFOUND", ""),
        "15_tensor_not_there": ({"a": "1.safetensors", "b": "1.safetensors"}, "FORMAT", "weight_map names 2 tensors"),
        "15_tensor_unknown": ({"c": "1.safetensors"}, "FORMAT", "not in weight_map"),
        "15_wrong_shard": ({"a": "2.safetensors", "b": "1.safetensors"}, "FORMAT", "another shard"),
        "15_no_tensors": ({}, "FORMAT", "no \"weight_map\""),
        "15_a_list": ([], "FORMAT", "no \"weight_map\""),
    }
    for name, (weights, status, words) in rows.items():
        d = root / (name + ".index")
        d.mkdir(parents=True, exist_ok=True)
        (d / "1.safetensors").write_bytes(st('{"a":' + entry() + "}", bytes(4)))
        (d / "2.safetensors").write_bytes(st('{"b":' + entry() + "}", bytes(4)))
        (d / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
        (root / (name + ".index.expected")).write_text(f"{CODE[status]} {words}\n")


# ---- GGUF ----------------------------------------------------------------------------------------------------------

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def s(x):
    x = x if isinstance(x, bytes) else x.encode()
    return struct.pack("<Q", len(x)) + x


def head(tensors=0, keys=0, version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors & (2**64 - 1), keys & (2**64 - 1))


def kv(key, kind, value):
    return s(key) + struct.pack("<I", kind) + value


def u32(v):
    return struct.pack("<I", v)


def u64(v):
    return struct.pack("<Q", v & (2**64 - 1))


def tensor(name="t", ne=(1,), kind=0, offset=0, dims=None):
    return s(name) + u32(len(ne) if dims is None else dims) + b"".join(map(u64, ne)) + u32(kind) + u64(offset)


def file(parts, data=b"", keys=0, tensors=0, align=32, **h):
    body = head(tensors, keys, **h) + parts
    return body + bytes(-len(body) % align) + data


def one(ne=(1,), kind=0, offset=0, data=4, name="t", dims=None):
    return file(tensor(name, ne, kind, offset, dims), bytes(data), tensors=1)


def two(name="b", offset=32, data=64):
    return file(tensor("a") + tensor(name, offset=offset), bytes(data), tensors=2)


def gguf():
    rows = {
        "01_magic": (head(magic=b"GGUX"), "FORMAT", ""),
        "01_version_0": (head(version=0), "UNSUPPORTED", ""),
        "01_version_1": (head(version=1), "UNSUPPORTED", ""),
        "01_version_4": (head(version=4), "UNSUPPORTED", ""),
        "01_big_endian": (head(version=0x03000000), "UNSUPPORTED", "endian"),
        "02_tensors_past_end": (head(tensors=1 << 20), "FORMAT", ""),
        "02_tensors_negative": (head(tensors=-1), "FORMAT", ""),
        "02_keys_past_end": (head(keys=1 << 40), "FORMAT", ""),
        "02_keys_negative": (file(kv("a", U32, u32(1)), keys=-1), "FORMAT", ""),
        "03_key_empty": (file(kv("", U32, u32(1)), keys=1), "FORMAT", ""),
        "03_key_blank": (file(kv("a b", U32, u32(1)), keys=1), "FORMAT", ""),
        "03_key_not_ascii": (file(kv("\u00e4", U32, u32(1)), keys=1), "FORMAT", ""),
        "03_key_twice": (file(kv("a", U32, u32(1)) + kv("a", U32, u32(2)), keys=2), "FORMAT", ""),
        "03_key_65536": (file(kv("k" * 65536, U32, u32(1)), keys=1), "LIMIT", ""),
        "03_key_past_end": (head(keys=1) + u64(1000) + b"abcdefgh", "FORMAT", ""),
        "03_key_length_wraps": (head(keys=1) + u64(-8) + b"abcdefgh", "FORMAT", ""),
        "03_string_past_end": (file(s("a") + u32(STRING) + u64(1000) + b"text", keys=1), "FORMAT", ""),
        "04_type_13": (file(kv("a", 13, u64(0)), keys=1), "FORMAT", ""),
        "04_bool_2": (file(kv("a", BOOL, b"\x02"), keys=1), "FORMAT", ""),
        "04_bools_2": (file(kv("a", ARRAY, u32(BOOL) + u64(2) + b"\1\2"), keys=1), "FORMAT", ""),
        "04_nested": (file(kv("a", ARRAY, u32(ARRAY) + u64(0)), keys=1), "UNSUPPORTED", ""),
        "04_array_type_13": (file(kv("a", ARRAY, u32(13) + u64(1) + u64(0)), keys=1), "FORMAT", ""),
        "04_array_2_to_30": (file(kv("a", ARRAY, u32(U8) + u64((1 << 30) + 1)), keys=1), "LIMIT", ""),
        "04_array_past_end": (file(kv("a", ARRAY, u32(U64) + u64(1000) + u64(1)), keys=1), "FORMAT", ""),
        "04_array_wraps": (file(kv("a", ARRAY, u32(U64) + u64(1 << 61)), keys=1), "LIMIT", ""),
        "04_strings_past_end": (file(kv("a", ARRAY, u32(STRING) + u64(9) + s("x")), keys=1), "FORMAT", ""),
        "05_alignment_0": (file(kv("general.alignment", U32, u32(0)), keys=1), "FORMAT", "alignment"),
        "05_alignment_12": (file(kv("general.alignment", U32, u32(12)), keys=1), "FORMAT", "alignment"),
        "05_alignment_4": (file(kv("general.alignment", U32, u32(4)), keys=1), "FORMAT", "alignment"),
        "05_alignment_u64": (file(kv("general.alignment", U64, u64(32)), keys=1), "FORMAT", "alignment"),
        "06_name_64": (one(name="n" * 64), "FORMAT", ""),
        "06_name_empty": (one(name=""), "FORMAT", ""),
        "06_name_twice": (two("a"), "FORMAT", ""),
        "07_five_dimensions": (one((1, 1, 1, 1, 1)), "FORMAT", ""),
        "07_dimension_negative": (one((-1,)), "FORMAT", ""),
        "07_product_wraps": (one((1 << 31, 1 << 31, 4)), "FORMAT", ""),
        "07_zero_hides_a_wrap": (one((1 << 31, 1 << 31, 4, 0)), "FORMAT", ""),
        "08_type_removed_4": (one((32,), 4, data=40), "UNSUPPORTED", ""),
        "08_type_removed_31": (one((32,), 31, data=40), "UNSUPPORTED", ""),
        "08_type_removed_36": (one((32,), 36, data=40), "UNSUPPORTED", ""),
        "08_type_1000": (one((32,), 1000, data=40), "UNSUPPORTED", ""),
        "08_half_a_block": (one((33,), 2, data=40), "FORMAT", ""),
        "08_half_a_k_block": (one((128,), 12, data=144), "FORMAT", ""),
        "08_bytes_wrap": (one((1 << 31, 1 << 31)), "FORMAT", ""),
        "09_hole": (one(offset=32, data=64), "FORMAT", ""),
        "09_overlap": (two(offset=0), "FORMAT", ""),
        "09_unaligned": (two(offset=4), "FORMAT", ""),
        "09_order": (file(tensor("a", offset=32) + tensor("b", offset=0), bytes(64), tensors=2), "FORMAT", ""),
        "09_offset_wraps": (one(offset=-32, data=64), "FORMAT", ""),
        "10_data_short": (one((2,), data=7), "FORMAT", ""),
        "10_no_data": (head(1) + tensor(), "FORMAT", ""),
    }
    for name, (data, status, words) in rows.items():
        put(name + ".gguf", data, status, words)


# ---- a GGUF that is a model ----------------------------------------------------------------------------------------

SIZES = {"block_count": 1, "context_length": 8, "embedding_length": 8, "feed_forward_length": 8,
         "attention.head_count": 2}


def model(change=(), drop=(), tensors=None, extra=b"", n_extra=0, arch="llama"):
    keys = {f"{arch}.{k}": u32(v) for k, v in SIZES.items()}
    keys[f"{arch}.attention.layer_norm_rms_epsilon"] = ("f", struct.pack("<f", 1e-5))
    keys.update(dict(change))
    body = kv("general.architecture", STRING, s(arch))
    n = 1 + n_extra
    for k, v in keys.items():
        if k in drop:
            continue
        kind, v = (F32, v[1]) if isinstance(v, tuple) else (U32, v)
        body += kv(k, kind, v)
        n += 1
    body += extra
    shapes = {"token_embd.weight": (8, 4), "output_norm.weight": (8,), "blk.0.attn_norm.weight": (8,),
              "blk.0.ffn_norm.weight": (8,), "blk.0.attn_q.weight": (8, 8), "blk.0.attn_k.weight": (8, 8),
              "blk.0.attn_v.weight": (8, 8), "blk.0.attn_output.weight": (8, 8), "blk.0.ffn_gate.weight": (8, 8),
              "blk.0.ffn_up.weight": (8, 8), "blk.0.ffn_down.weight": (8, 8)}
    kinds = {}
    for k, v in (tensors or {}).items():
        if v is None:
            shapes.pop(k)
        elif isinstance(v, int):
            kinds[k] = v
        else:
            shapes[k] = v
    infos, at = b"", 0
    for k, ne in shapes.items():
        count = 1
        for x in ne:
            count *= x
        size = 4 * count if k not in kinds else {10: 84}[kinds[k]] * (count // 256)
        infos += tensor(k, ne, kinds.get(k, 0), at)
        at += -(-size // 32) * 32
    return file(body + infos, bytes(at), keys=n, tensors=len(shapes))


def models():
    pre = "llama."
    rows = {
        "key_missing": (model(drop=[pre + "block_count"]), "CONFIG", "block_count"),
        "key_of_wrong_type": (model({pre + "block_count": ("f", struct.pack("<f", 1))}), "CONFIG", "block_count"),
        "layers_2_to_31": (model({pre + "block_count": u32(2**31)}), "CONFIG", "block_count"),
        "width_0": (model({pre + "embedding_length": u32(0)}), "CONFIG", "embedding_length"),
        "heads_no_divisor": (model({pre + "attention.head_count": u32(3)}), "SHAPE", "its keys want"),
        "kv_heads_uneven": (model({pre + "attention.head_count": u32(4), pre + "attention.head_count_kv": u32(3)}), "CONFIG",
                            "evenly"),
        "rope_wider_than_a_head": (model({pre + "rope.dimension_count": u32(6)}), "CONFIG", "rope.dimension_count"),
        "epsilon_nan": (model({pre + "attention.layer_norm_rms_epsilon": ("f", struct.pack("<f", float("nan")))}), "CONFIG",
                        "not a finite number"),
        "architecture_unknown": (model(arch="mamba"), "UNSUPPORTED", "known are gpt2, llama"),
        "own_config_missing": (model(arch="tilia"), "CONFIG", "tilia.config is missing"),
        "own_config_no_json": (model(arch="tilia", extra=kv("tilia.config", STRING, s("{")), n_extra=1), "FORMAT", "JSON"),
        "own_config_a_number": (model(arch="tilia", extra=kv("tilia.config", U32, u32(7)), n_extra=1), "CONFIG",
                                "a string"),
        "own_config_other_sizes": (model(arch="tilia", extra=kv("tilia.config", STRING, s(json.dumps(dict(
            model_type="flash", hidden_size=1 << 20, num_hidden_layers=1024, vocab_size=1 << 24, expansion=8192,
            max_position_embeddings=8)))), n_extra=1), "FORMAT", "the keys speak of"),
        "12_tensor_missing": (model(tensors={"blk.0.ffn_up.weight": None}), "NOTFOUND", "missing"),
        "12_tensor_extra": (model(tensors={"blk.1.ffn_up.weight": (8, 8)}), "FORMAT", "no such tensor"),
        "12_tensor_shape": (model(tensors={"blk.0.ffn_up.weight": (8, 4)}), "SHAPE", "its keys want"),
        "12_tensor_dimensions": (model(tensors={"blk.0.ffn_up.weight": (8, 4, 2)}), "SHAPE", "its keys want"),
        "11_split_alone": (model(extra=kv("split.no", U16, b"\0\0") + kv("split.count", U16, b"\3\0"), n_extra=2), "FORMAT",
                           "one of 3 parts"),
        "experts_more_used_than_there": (model({pre + "expert_count": u32(2), pre + "expert_used_count": u32(3)}), "CONFIG",
                                         "experts"),
        "experts_65536": (model({pre + "expert_count": u32(65536), pre + "expert_used_count": u32(2)}), "CONFIG",
                          "expert_count"),
        "experts_none_used": (model({pre + "expert_count": u32(2)}), "CONFIG", "expert_used_count"),
        "experts_tensor_missing": (model({pre + "expert_count": u32(2), pre + "expert_used_count": u32(1)}), "NOTFOUND",
                                   "missing"),
    }
    rows["12_type_known_not_supported"] = (
        model({pre + "feed_forward_length": u32(256)},
              tensors={"blk.0.ffn_gate.weight": (8, 256), "blk.0.ffn_up.weight": (8, 256), "blk.0.ffn_down.weight": (256, 8)}),
        "OK", "")
    data = bytearray(rows["12_type_known_not_supported"][0])
    at = data.index(b"blk.0.ffn_down.weight") + 21 + 4 + 16
    data[at:at + 4] = u32(10)  # q2_k: eight blocks of 84 bytes where 8192 were
    rows["12_type_known_not_supported"] = (bytes(data[:-8192 + 672]), "UNSUPPORTED", "q2_k is known but not supported; f32")
    for name, (data, status, words) in rows.items():
        put(name + ".model.gguf", data, status, words)


# ---- config.json and generation_config.json ------------------------------------------------------------------------


def configs():
    base = dict(model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
                vocab_size=100, max_position_embeddings=32)
    moe = dict(base, model_type="qwen3_moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)

    def with_(**more):
        return json.dumps({**base, **more})

    def experts(**more):
        return json.dumps({**moe, **more})

    rows = {
        "not_json": ("{", "FORMAT", ""),
        "array": ("[]", "CONFIG", "not an object"),
        "twin_keys": ('{"model_type":"llama","model_type":"gpt2"}', "FORMAT", "duplicate"),
        "deep": ('{"a":' * 3000 + "1" + "}" * 3000, "LIMIT", "depth"),
        "no_type": ("{}", "CONFIG", "model_type"),
        "type_a_number": ('{"model_type":7}', "CONFIG", "model_type"),
        "type_unknown": ('{"model_type":"mamba"}', "UNSUPPORTED", "known are gpt2, llama"),
        "sizes_missing": ('{"model_type":"llama"}', "CONFIG", "vocab_size"),
        "size_a_string": (with_(hidden_size="64"), "CONFIG", "hidden_size"),
        "size_real": (with_(hidden_size=64.5), "CONFIG", "hidden_size"),
        "size_negative": (with_(hidden_size=-64), "CONFIG", "hidden_size"),
        "size_2_to_62": (with_(hidden_size=2**62), "CONFIG", "hidden_size"),
        "size_1e300": (with_(hidden_size=1e300), "CONFIG", "hidden_size"),
        "layers_2_to_31": (with_(num_hidden_layers=2**31), "CONFIG", "num_hidden_layers"),
        "vocabulary_0": (with_(vocab_size=0), "CONFIG", "vocab_size"),
        "heads_uneven": (with_(num_key_value_heads=3), "CONFIG", "evenly"),
        "act_unknown": (with_(hidden_act="mish"), "CONFIG", "hidden_act"),
        "bool_a_number": (with_(tie_word_embeddings=1), "CONFIG", "tie_word_embeddings"),
        "theta_0": (with_(rope_theta=0), "CONFIG", "rope_theta"),
        "epsilon_a_string": (with_(rms_norm_eps="small"), "CONFIG", "rms_norm_eps"),
        "epsilon_negative": (with_(rms_norm_eps=-1.0), "CONFIG", "epsilon"),
        "scaling_a_list": (with_(rope_scaling=[]), "CONFIG", "rope_scaling"),
        "scaling_unknown": (with_(rope_scaling={"type": "magic"}), "CONFIG", "magic"),
        "scaling_factor_0": (with_(rope_scaling={"type": "linear", "factor": 0}), "CONFIG", "factor"),
        "longrope_without_lists": (with_(rope_scaling={"type": "longrope"}), "CONFIG", "short_factor"),
        "longrope_short_list": (with_(rope_scaling={"type": "longrope", "short_factor": [1], "long_factor": [1]}), "CONFIG",
                                "longrope"),
        "eos_outside": (with_(eos_token_id=100), "CONFIG", "vocabulary"),
        "eos_list_outside": (with_(eos_token_id=[1, 100]), "CONFIG", "eos_token_id"),
        "eos_list_of_text": (with_(eos_token_id=["</s>"]), "CONFIG", "eos_token_id"),
        "eos_list_long": (with_(eos_token_id=list(range(20))), "CONFIG", "more than"),
        "bos_negative": (with_(bos_token_id=-5), "CONFIG", "bos_token_id"),
        "head_dim_odd": (with_(head_dim=7), "CONFIG", "RoPE"),
        "experts_0": (experts(num_experts=0), "CONFIG", "num_experts"),
        "experts_too_many": (experts(num_experts=100000), "CONFIG", "num_experts"),
        "experts_fewer_than_used": (experts(num_experts_per_tok=5), "CONFIG", "5 of 4 experts"),
        "experts_width_negative": (experts(moe_intermediate_size=-8), "CONFIG", "moe_intermediate_size"),
        "experts_norm_a_number": (experts(norm_topk_prob=1), "CONFIG", "norm_topk_prob"),
        "experts_step_0": (experts(decoder_sparse_step=0), "CONFIG", "decoder_sparse_step"),
        "experts_layers_a_number": (experts(mlp_only_layers=1), "CONFIG", "mlp_only_layers"),
        "experts_layer_outside": (experts(mlp_only_layers=[2]), "CONFIG", "mlp_only_layers"),
        "experts_coefficient_negative": (experts(router_aux_loss_coef=-1.0), "CONFIG", "router_aux_loss_coef"),
        "tilia_a_number": (with_(tilia=3), "CONFIG", "tilia"),
        "tilia_norm_unknown": (with_(tilia={"norm": "batch"}), "CONFIG", "layernorm, rmsnorm"),
        "tilia_dropout_above_1": (with_(tilia={"drop_resid": 1.5}), "CONFIG", "drop_resid"),
    }
    for name, (data, status, words) in rows.items():
        put(name + ".config.json", data, status, words)
    rows = {
        "array": ([], "not an object"),
        "sample_a_number": ({"do_sample": 1}, "do_sample"),
        "temperature_text": ({"temperature": "hot"}, "temperature"),
        "temperature_negative": ({"temperature": -0.5}, "temperature"),
        "top_p_above_1": ({"top_p": 1.5}, "top_p"),
        "min_p_negative": ({"min_p": -0.1}, "min_p"),
        "top_k_negative": ({"top_k": -1}, "top_k"),
        "top_k_real": ({"top_k": 1.5}, "top_k"),
        "penalty_0": ({"repetition_penalty": 0}, "repetition_penalty"),
        "max_0": ({"max_new_tokens": 0}, "max_new_tokens"),
        "max_2_to_40": ({"max_new_tokens": 2**40}, "max_new_tokens"),
        "eos_text": ({"eos_token_id": "</s>"}, "eos_token_id"),
        "eos_negative": ({"eos_token_id": [3, -1]}, "eos_token_id"),
        "eos_outside": ({"eos_token_id": 100}, "eos_token_id"),
        "eos_nested": ({"eos_token_id": [[1]]}, "eos_token_id"),
    }
    for name, (o, words) in rows.items():
        put(name + ".generation.json", json.dumps(o), "CONFIG", words)


shutil.rmtree(root, ignore_errors=True)
root.mkdir(parents=True)
safetensors()
index()
gguf()
models()
configs()
print(len(list(root.glob("*.expected"))), "hostile files")
