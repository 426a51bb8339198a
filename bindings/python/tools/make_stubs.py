"""Writes src/tilia/ops/__init__.pyi: the signatures of every function of tilia.ops, for editors and type checkers.

    python make_stubs.py [--check]
"""

import inspect
import os
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(HERE, "src"))
PATH = os.path.join(HERE, "src", "tilia", "ops", "__init__.pyi")
HEAD = '''"""Written by tools/make_stubs.py from the functions themselves."""

from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from tilia import Engine, Model

'''


def text_of(annotation):
    return annotation if isinstance(annotation, str) else "Any"


def parameters(f, extra=()):
    out, star = [], False
    for p in inspect.signature(f).parameters.values():
        if p.name == "self":
            continue
        if p.kind is p.VAR_POSITIONAL:
            out.append(f"*{p.name}: {text_of(p.annotation)}")
            star = True
            continue
        if p.kind is p.VAR_KEYWORD:
            out.append(f"**{p.name}: {text_of(p.annotation)}")
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            out.append("*")
            star = True
        default = "" if p.default is p.empty else " = ..."
        out.append(f"{p.name}: {text_of(p.annotation)}{default}")
    if extra:
        at = len(out) - 1 if out and out[-1].startswith("**") else len(out)
        if not star:
            out.insert(at, "*")
            at += 1
        out[at:at] = list(extra)
    return ", ".join(out)


def result(f):
    r = inspect.signature(f).return_annotation
    return r if isinstance(r, str) else "Any"


def callable_class(name, call, vjp):
    dy = ", ".join(["self", "dy: Any"] + ([vjp] if vjp else []))
    return (f"class _{name}:\n    def __call__(self, {call}) -> Any: ...\n"
            f"    def vjp({dy}) -> Tuple[Any, ...]: ...\n\n{name}: _{name}\n")  # fmt: skip


def plain_class(name, c):
    lines = [f"class {name}:"]
    for k, m in vars(c).items():
        if isinstance(m, property):
            lines.append(f"    @property\n    def {k}(self) -> {result(m.fget)}: ...")
        elif inspect.isfunction(m) and (not k.startswith("_") or k in ("__init__", "__call__", "__dlpack__",
                                                                     "__dlpack_device__", "__array__")):  # fmt: skip
            lines.append(f"    def {k}({', '.join(x for x in ('self', parameters(m)) if x)}) -> {result(m)}: ...")
    return "\n".join(lines) + "\n"


def options_of(f):
    """Keyword parameters that **options stands for."""
    given = [p for p in inspect.signature(f).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return [f"{p.name}: {text_of(p.annotation)} = ..." for p in given]


def function(name, f, options):
    body = parameters(f)
    if options:
        body = body.replace("**options: Any", ", ".join(options))
    if not hasattr(f, "vjp"):
        return f"def {name}({body}) -> {result(f)}: ...\n"
    v = parameters(f.vjp)
    if options:
        v = v.replace("**options: Any", "*, " + ", ".join(options))
    return (f"class _{name}:\n    def __call__(self, {body}) -> {result(f)}: ...\n"
            f"    def vjp(self, {v}) -> {result(f.vjp)}: ...\n\n{name}: _{name}\n")  # fmt: skip


def stubs():
    import tilia.ops as ops
    from tilia.ops import _attention as a
    from tilia.ops._operator import Operator

    parts = [HEAD]
    for name in ops.__all__:
        x = getattr(ops, name)
        if isinstance(x, Operator):
            parts.append(callable_class(name, parameters(x._spec, ["out: Any = ..."]), parameters(x._spec)))
        elif inspect.isclass(x):
            parts.append(plain_class(name, x))
        elif inspect.isfunction(x):
            parts.append(function(name, x, options_of(a._Call.__init__) if name.startswith("attention") else []))
        elif name == "multi_head_attention":
            p = parameters(a._mha._spec)
            parts.append(callable_class(name, p, p))
        else:
            p = parameters(type(x)._spec)
            parts.append(callable_class(name, p, p))
    return "\n".join(parts)


def main():
    new = stubs()
    if "--check" in sys.argv:
        with open(PATH) as f:
            return 0 if f.read() == new else 1
    with open(PATH, "w") as f:
        f.write(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
