"""What bench/table.py measured, as text: docs/performance.md, and the rows that both READMEs quote. Measures nothing."""
import os, pathlib, re, statistics

LEVELS = ("none", "light", "wide", "full")
DTYPES = ("f32", "bf16")
NAMES = {  # English, Chinese, what is asked of the best types' ratio, of step over floor
    "char-cpu": ("4 layers of 128, 12 x 64", "4 层宽 128，12 x 64", 2.5, 1.25),
    "char": ("6 layers of 384, 16 x 256", "6 层宽 384，16 x 256", 1.3, 1.10),
    "gpt2": ("GPT-2 124M, 1 x 1024", "GPT-2 124M，1 x 1024", 1.25, 1.10),
    "gpt2-4x512": ("GPT-2 124M, 4 x 512", "GPT-2 124M，4 x 512", 1.25, 1.10),
}
MFU = {"f32": 0.82, "bf16": 0.73}
median = statistics.median


def spread(values, scale=1.0, digits=2):
    if not values:
        return "-"
    show = lambda x: f"{x * scale:.{digits}f}"
    return show(median(values)) + (f" ({show(min(values))}-{show(max(values))})" if len(values) > 1 else "")


def number(x, digits=2):
    return "-" if x is None else f"{x:.{digits}f}"


# ---- what the samples say -------------------------------------------------------------------------------------


def train(found, size, dtype):
    """None, or what the samples of a training step say"""
    r = found.get(f"train {size} {dtype}")
    if not r:
        return None
    rounds = r["data"]["rounds"]
    flat = {k: [t for x in rounds for t in x.get(k, [])] for k in ("tilia", "eager", "compile")}
    peers = {k: median(v) for k, v in flat.items() if v and k != "tilia"}
    best = min(peers, key=peers.get) if peers else None
    floors = r["data"]["floors"]
    return {"ms": {k: spread(v, 1e3, 1) for k, v in flat.items()}, "tilia": median(flat["tilia"]), "peer": peers.get(best),
            "best": best, "ratio": peers[best] / median(flat["tilia"]) if peers else None,
            "ratios": [median(x[best]) / median(x["tilia"]) for x in rounds] if peers else [],
            "mfu": [x["flops"] / median(x["tilia"]) / x["limit"] for x in rounds if x["limit"] > 0],
            "limit": [x["limit"] for x in rounds], "first": [x["first"] / median(x["tilia"]) for x in rounds],
            "floor": [x["least_seconds"] / x["floor"] for x in floors], "floor_middle": [x["seconds"] / x["floor"] for x in floors]}


def best_types(found, size):
    """Tilia's faster type against the fastest of PyTorch's four: (type, type, ratio) or None"""
    t = {d: train(found, size, d) for d in DTYPES}
    if not all(t.values()) or not all(x["peer"] for x in t.values()):
        return None
    mine, theirs = (min((x[k], d) for d, x in t.items()) for k in ("tilia", "peer"))
    return mine[1], theirs[1], theirs[0] / mine[0]


def attention(found, n, heads, dtype):
    """[(what, Tilia's seconds, PyTorch's, share of the limit), ...]: forward, and with backward"""
    r = found.get(f"attention {n}")
    rows = [x for x in r["data"]["rounds"] if x["heads"] == heads and x["dtype"] == dtype] if r else []
    return [(what, [x["tilia"][i] for x in rows], [x["torch"][i] for x in rows if "torch" in x], [x["share"][i] for x in rows])
            for i, what in enumerate(("forward", "both"))] if rows else []


def ratio(mine, theirs):
    return median(theirs) / median(mine) if mine and theirs else None


def decode(found, dtype):
    """(seconds of a token, share of plain reads), by rounds"""
    r = found.get("decode")
    rows = [x for one in r["data"]["rounds"] for x in one if x["dtype"] == dtype] if r else []
    return [median(x["seconds"]) for x in rows], [x["weight_bytes"] / median(x["seconds"]) / x["limit_bytes"] for x in rows]


def overhead(found):
    r = found.get("overhead")
    if not r:
        return None
    keys = ("engine_start_seconds", "operator_seconds", "operator_all_threads_seconds")
    return [[x[k] for x in r["data"]["rounds"]] for k in keys]


def lengths(found):
    return sorted(int(p.split()[1]) for p in found if p.startswith("attention "))


def limits(found):
    all_ = [x for size in NAMES for d in DTYPES if (t := train(found, size, d)) for x in t["limit"]]
    return (min(all_), max(all_)) if all_ else None


# ---- docs/performance.md ----------------------------------------------------------------------------------------


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in rows)]) + "\n"


def page_train(found):
    rows = []
    for size, (name, _, asked, _) in NAMES.items():
        for d in DTYPES:
            t = train(found, size, d)
            if t:
                rows.append([name, d, t["ms"]["tilia"], t["ms"]["eager"], t["ms"]["compile"],
                             f"**{number(t['ratio'])}**" + (f" ({min(t['ratios']):.2f}-{max(t['ratios']):.2f})" if len(t["ratios"]) > 1 else ""),
                             spread(t["mfu"], 100, 0) + " %", spread(t["first"], 1, 1)])
        b = best_types(found, size)
        if b:
            rows.append([name, "the best", b[0], "", b[1], f"**{b[2]:.2f}** (asked {asked:g})", "", ""])
    if not rows:
        return ""
    return ("## A training step\n\nForward, backward, clipping, AdamW; milliseconds: median (least-most). PyTorch with its fused AdamW, "
            "scaled_dot_product_attention and large pages.\nThe ratio is that to the faster of eager and compiled; in the line \"the best\" to the "
            "fastest of all four. \"of limit\": the step's operations, attention\ncounted causal-exact, over the multiply-adds measured in the same "
            f"round (asked of GPT-2 124M: {100 * MFU['f32']:.0f} % in f32, {100 * MFU['bf16']:.0f} % in bf16). \"first\": the first step over the others.\n\n"
            + table(["model, tokens", "type", "Tilia", "eager", "compiled", "times as fast", "of limit", "first"], rows))


def page_floor(found):
    rows = [[name, d, spread(t["floor"]), spread(t["floor_middle"]), f"{asked:g}"] for size, (name, _, _, asked) in NAMES.items()
            for d in DTYPES if (t := train(found, size, d)) and t["floor"]]
    if not rows:
        return ""
    return ("## The same steps beside their floor\n\nProducts and attention each by itself, every other operator's bytes over the bandwidth of the "
            "same run: `tilia profile --floor`.\n\n" + table(["model, tokens", "type", "best step / floor", "middle step / floor", "asked"], rows))


def page_attention(found):
    rows = []
    for heads in (12, 1):
        for d in DTYPES:
            for n in lengths(found):
                for what, mine, theirs, share in attention(found, n, heads, d):
                    r = ratio(mine, theirs)
                    rows.append([str(heads), str(n), d, "forward" if what == "forward" else "with backward", spread(mine, 1e3), spread(theirs, 1e3),
                                 f"**{r:.2f}**" if r else "-", "1.5" if what == "forward" and heads == 12 else "2" if what == "both" else "",
                                 f"{100 * median(share):.0f} %"])
    if not rows:
        return ""
    return ("## Attention\n\nCausal, heads of 64, one sequence, against scaled_dot_product_attention; milliseconds. \"of limit\": of the kernel alone "
            "(forward, or backward).\n\n" + table(["heads", "tokens", "type", "", "Tilia", "PyTorch", "times as fast", "asked", "of limit"], rows))


def page_memory(found):
    r = found.get("memory")
    if not r:
        return ""
    rows = []
    for d in DTYPES:
        theirs = r["data"].get("torch", {}).get(d)
        for level in LEVELS:
            mine = r["data"]["tilia"][d][level]
            rows.append([d, level, f"{mine / 1e6:.0f}", f"{theirs / 1e6:.0f}" if theirs else "-", f"**{mine / theirs:.2f}**" if theirs else "-"])
    return ("## Memory of a step\n\nGPT-2 124M, 1 x 1024: activations with all scratch memory, by `--recompute`, against what PyTorch's forward pass keeps for "
            "its\nbackward one (asked: a third). Exact: the plan's bytes are those allocated. MB.\n\n"
            + table(["type", "recompute", "Tilia", "PyTorch", "share"], rows))


def page_decode(found):
    rows = [[d, spread(s, 1e3, 1), spread(share, 100, 0) + " %", "85 %"] for d in DTYPES if (x := decode(found, d)) and (s := x[0]) for share in [x[1]]]
    if not rows:
        return ""
    return ("## A token of GPT-2 124M\n\nOne row; the weights' bytes a second over what plain reads of as many bytes reach in the same round.\n\n"
            + table(["type", "ms", "of reads", "asked"], rows))


def page_overhead(found):
    x = overhead(found)
    if not x:
        return ""
    return ("## Around the arithmetic\n\n" + table(["", "median (least-most)", "asked"], [
        ["start of an engine, ms", spread(x[0], 1e3), "under 20"], ["an operator with nothing to do, one thread, microseconds", spread(x[1], 1e6), "under 2"],
        ["the same on all threads", spread(x[2], 1e6), "under 2"]]))


def caption(found, now):
    dates = sorted({r["when"][:10] for r in found.values()}) or [now["date"]]
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return now["processor"], now["isa"], now["threads"], when, now["torch"] or "-"


def page(found, now):
    cpu, isa, threads, when, torch = caption(found, now)
    limit = limits(found)
    swing = f" The limit of f32 multiply-adds moved between {limit[0] / 1e9:.0f} and {limit[1] / 1e9:.0f} GFLOP/s during the run." if limit else ""
    head = (f"# Performance\n\n{cpu} ({isa}), {threads} threads, {when}. Tilia at {now['commit'] or 'an unknown commit'}; PyTorch {torch}, Python {now['python']}"
            f"{'; one quick round' if now['quick'] else ''}. Written by\n`bench/table.py`, which `make bench PYTHON=...` runs; peers: `bench/requirements.txt`. Parts "
            f"are measured interleaved, in one run each.{swing}\nOnly ratios mean anything on another machine.\n\n")
    parts = [f(found) for f in (page_train, page_floor, page_attention, page_memory, page_decode, page_overhead)]
    return head + "\n".join(p for p in parts if p)


# ---- the READMEs ----------------------------------------------------------------------------------------------------


def by_size(found, cell, sizes=NAMES):
    return [cell(s) for s in sizes if train(found, s, "f32")]


def pair(found, size, key, digits=2):
    values = [median(t[key]) if isinstance(t[key], list) and t[key] else t[key] if not isinstance(t[key], list) else None
              for d in DTYPES if (t := train(found, size, d))]
    return " / ".join(number(v, digits) for v in values)


def readme_rows(found, now, zh):
    L = 1 if zh else 0
    semicolon, comma = ("；", "、") if zh else ("; ", ", ")
    torch = now["torch"].split("+")[0]
    rows = []
    best = lambda s: f"{b[2]:.2f}" if (b := best_types(found, s)) else "-"
    steps = semicolon.join(by_size(found, lambda s: f"{NAMES[s][L]}{'：' if zh else ': '}**{pair(found, s, 'ratio')}**"
                                                    f"{'（' if zh else ' ('}{best(s)}{'）' if zh else ')'}"))
    rows.append(("一步训练，对照 PyTorch " + torch + "（eager 与编译中较快者），f32 / bf16；括号中为两者各取最快类型" if zh else
                 f"a training step against the faster of eager and compiled PyTorch {torch}, f32 / bf16; in brackets each at its fastest type",
                 steps + (" 倍" if zh else " times"), "`bench/table.py`"))
    floors = semicolon.join(by_size(found, lambda s: pair(found, s, "floor"), [s for s in NAMES if (t := train(found, s, "f32")) and t["floor"]]))
    rows.append(("前三种与其下限之比：乘法与注意力各自单独运行，其余按内存速度" if zh else
                 "the first three against their floor: products and attention each by itself, all else at the memory's speed", floors, "`tilia profile --floor`"))
    mfu = semicolon.join(f"{d} {spread(t['mfu'], 100, 0)} %" for d in DTYPES if (t := train(found, "gpt2", d)))
    rows.append(("GPT-2 124M 的一步达到乘加极限的份额（注意力按因果精确计数）" if zh else
                 "a step of GPT-2 124M, 1 x 1024, as a share of the multiply-add limit, attention counted causal-exact", mfu, ""))
    for heads in (12, 1):
        cell = lambda i: comma.join(" / ".join(number(ratio(a[i][1], a[i][2]), 1) for d in DTYPES if (a := attention(found, n, heads, d))) for n in lengths(found))
        ns = comma.join(map(str, lengths(found)))
        figures = (f"前向 {cell(0)} 倍；连同反向 {cell(1)} 倍" if zh else f"forward {cell(0)} times; with backward {cell(1)}")
        rows.append(((f"因果注意力，{heads} 头宽 64，对照 scaled_dot_product_attention，f32 / bf16：n = {ns}" if heads > 1 else "同上，单头") if zh else
                     (f"causal attention, {heads} heads of 64, against scaled_dot_product_attention, f32 / bf16: n = {ns}" if heads > 1 else "the same, one head"),
                     figures, ""))
    m = found["memory"]["data"]
    cell = lambda d: comma.join(f"{level} {m['tilia'][d][level] / 1e6:.0f}" for level in LEVELS)
    theirs = lambda d: f"{m['torch'][d] / 1e6:.0f}" if "torch" in m else "-"
    rows.append(("激活与临时内存，GPT-2 124M，1 x 1024，按 `--recompute`，MB" if zh else
                 "memory for activations and scratch, GPT-2 124M, 1 x 1024, by `--recompute`, MB",
                 semicolon.join(f"{d} {cell(d)}{'（PyTorch ' if zh else ' (PyTorch '}{theirs(d)}{'）' if zh else ')'}" for d in DTYPES),
                 "`tilia plan --preset gpt2 --train --batch 1`"))
    rows.append(("GPT-2 124M 的一个 token，达到普通读取速度的份额" if zh else "a token of GPT-2 124M, as a share of plain reads of as many bytes",
                 semicolon.join(f"{d} {spread(decode(found, d)[1], 100, 0)} %" for d in DTYPES), "`tilia bench generate`"))
    x = overhead(found)
    rows.append(("引擎启动；一个算子除计算之外的开销，一个线程 / 所有线程" if zh else "an engine's start; an operator beside its arithmetic, one thread / all",
                 f"{median(x[0]) * 1e3:.2f} {'毫秒；' if zh else 'ms; '}{median(x[1]) * 1e6:.2f} / {median(x[2]) * 1e6:.2f} {'微秒' if zh else 'microseconds'}",
                 "`tilia bench overhead`"))
    return rows


def readme(found, now, zh):
    cpu, isa, threads, when, torch = caption(found, now)
    limit = limits(found)
    range_ = f"{limit[0] / 1e9:.0f}-{limit[1] / 1e9:.0f}"
    head = (f"{cpu}（{isa}），{threads} 个线程，{when}，由 `make bench PYTHON=...` 交错测得：中位数，括号内为最小与最大；机器与他人共用，期间乘加极限在 {range_} GFLOP/s 之间：\n只有同一次运行中的比值才有意义。"
            "完整表格见 [docs/performance.md](docs/performance.md)。" if zh else
            f"{cpu} ({isa}), {threads} threads, {when}, by `make bench PYTHON=...`, interleaved: medians, least and most in brackets; the machine is shared, its\n"
            f"limit of multiply-adds moved between {range_} GFLOP/s meanwhile: only ratios within one run mean anything. The whole table: [docs/performance.md](docs/performance.md).")
    return head + "\n\n" + table(["内容", "数字", "命令"] if zh else ["what", "figure", "command"], readme_rows(found, now, zh))


BEGIN, END = "<!-- figures of bench/table.py -->", "<!-- end of figures -->"


def write(path, text):
    """All of it or nothing."""
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(path + ".tmp", path)


def publish(root, found, now):
    pages = {os.path.join(root, "docs", "performance.md"): page(found, now)}
    for name, zh in (("README.md", False), ("README.zh-CN.md", True)):
        path = os.path.join(root, name)
        old = pathlib.Path(path).read_text(encoding="utf-8")
        if old.count(BEGIN) != 1 or old.count(END) != 1:
            raise SystemExit(f"{path}: the lines {BEGIN} and {END} are not there once each")
        pages[path] = re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: f"{BEGIN}\n{readme(found, now, zh)}\n{END}", old, flags=re.S)
    for path, text in pages.items():
        write(path, text)
    return list(pages)
