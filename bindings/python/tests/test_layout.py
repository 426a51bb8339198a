"""The structs of _lib.py are those of the C headers, by a compiler's word."""

import ctypes
import os
import shutil
import subprocess

import pytest

from tilia import _lib

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
HEADERS = ["tilia.h", "tilia/attrs.h", "tilia/data.h", "tilia/module.h"]


def structs():
    for name, s in vars(_lib).items():
        if isinstance(s, type) and issubclass(s, ctypes.Structure) and name.startswith("tl_"):
            yield name, s


def test_sizes_and_offsets(tmp_path):
    cc = shutil.which("cc") or shutil.which("gcc")
    if not cc or not os.path.exists(os.path.join(ROOT, "include", "tilia.h")):
        pytest.skip("needs a C compiler and the headers")
    lines, want = [], []
    for name, s in structs():
        if name != "tl_op_def":  # its end, functions, is not mirrored
            lines.append(f"P(sizeof({name}));")
            want.append(f"{name} {ctypes.sizeof(s)}")
        for field, *_ in s._fields_:
            lines.append(f"P(offsetof({name}, {field})); P(sizeof((({name} *)0)->{field}));")
            want += [f"{name}.{field} at {getattr(s, field).offset}", f"{name}.{field} of {getattr(s, field).size}"]
    for name, value in (("TL_DIMS", _lib.DIMS), ("TL_OP_INS", _lib.OP_INS), ("TL_OP_OUTS", _lib.OP_OUTS),
                        ("TL_ATTR_MAX", _lib.ATTR_MAX), ("TL_BF16", 3), ("TL_BOOL", 13), ("TL_LOG_DEBUG", 3),
                        ("TL_FINISH_CONTEXT", 4), ("TL_SCHEDULE_WSD", 3), ("GATE_RELU2_SUM", 8), ("ACT_IDENTITY", 7),
                        ("CHUNK_VISIBLE", 0), ("GATE_COUNT_LENGTH", 3), ("HYPER_GSCALE", 8)):  # fmt: skip
        lines.append(f"P({name});")
        want.append(f"{name} {value}")
    source = tmp_path / "layout.c"
    source.write_text("#include <stddef.h>\n#include <stdio.h>\n" + "".join(f"#include <{h}>\n" for h in HEADERS)
                      + '#define P(x) printf("%lld\\n", (long long)(x))\nint main(void) {\n' + "\n".join(lines)
                      + "\nreturn 0;\n}\n")  # fmt: skip
    program = str(tmp_path / "layout")
    subprocess.run([cc, "-std=c11", "-I", os.path.join(ROOT, "include"), str(source), "-o", program], check=True)
    got = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    assert [f"{w.rsplit(' ', 1)[0]} {g}" for w, g in zip(want, got)] == want and len(got) == len(want)


def test_every_status_is_known():
    path = os.path.join(ROOT, "include", "tilia", "status.def")
    if not os.path.exists(path):
        pytest.skip("needs the headers")
    from tilia._errors import CODES

    for line in open(path):
        if line.startswith("X("):
            name, number = (x.strip() for x in line[2:].split(",")[:2])
            assert name == "OK" or CODES[int(number)][0] == name


def test_attributes_come_from_the_library():
    pytest.importorskip("numpy")
    from tilia.ops._run import OPS

    assert OPS["attention"].fields["window"] == (b"l", 16, 1)
    assert OPS["split"].fields["width"][2] == 6
    assert all(op.fields for op in OPS.values()), [op.name for op in OPS.values() if not op.fields]
