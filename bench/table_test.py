"""What bench/table.py makes of samples: ratios, medians, both languages, all files or none. Measures nothing.

    python3 bench/table_test.py"""
import os, pathlib, shutil, sys, tempfile, unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import table, table_text as text  # noqa: E402

NOW = {"processor": "Some Processor", "threads": 2, "torch": "9.1.2+cpu", "program": "0", "quick": False, "commit": "abc", "python": "3", "isa": "avx2",
       "date": "2030-01-02"}


def record(data, when="2030-01-02T03:04:05"):
    return {"facts": NOW, "when": when, "data": data}


def samples():
    found = {"overhead": record({"rounds": [{"engine_start_seconds": 5e-5, "operator_seconds": 6e-8, "operator_all_threads_seconds": 4e-7}] * 3}),
             "memory": record({"tilia": {d: dict(zip(text.LEVELS, (6e8, 4e8, 3e8, 1e8))) for d in text.DTYPES}, "torch": {"f32": 8e8, "bf16": 6e8}}),
             "decode": record({"rounds": [[{"dtype": d, "seconds": [0.02, 0.01, 0.03], "weight_bytes": 4e8, "limit_bytes": 2.5e10} for d in text.DTYPES]]})}
    for n in table.LENGTHS:
        found[f"attention {n}"] = record({"rounds": [{"dtype": d, "heads": h, "tilia": [0.001, 0.004], "torch": [0.002, 0.012], "share": [0.8, 0.9]}
                                                     for d in text.DTYPES for h in (12, 1)]})
    for s in table.SIZES:
        for d in text.DTYPES:
            rounds = [{"tilia": [t], "eager": [4.0 if d == "f32" else 6.0], "compile": [3.0 if d == "f32" else 9.0], "first": 3.0, "flops": 1e12, "limit": 1e12}
                      for t in (2.0, 1.0, 4.0)]
            floors = [{"floor": 1.0, "least_seconds": 1.05, "seconds": 1.1}] if s != "gpt2-4x512" else []
            found[f"train {s} {d}"] = record({"rounds": rounds, "floors": floors, "failed": {}})
    return found


class Table(unittest.TestCase):
    def test_ratios_are_those_of_medians(self):
        t = text.train(samples(), "gpt2", "f32")
        self.assertEqual((t["best"], t["ratio"]), ("compile", 1.5))
        self.assertEqual(sorted(t["ratios"]), [0.75, 1.5, 3.0])
        self.assertEqual(text.train(samples(), "gpt2", "bf16")["best"], "eager")
        self.assertEqual(text.best_types(samples(), "gpt2")[2], 1.5)
        self.assertAlmostEqual(text.decode(samples(), "f32")[1][0], 0.8)

    def test_the_page_has_every_part(self):
        page = text.page(samples(), NOW)
        for part in ("Some Processor (avx2), 2 threads, 2030-01-02", "PyTorch 9.1.2+cpu", "| GPT-2 124M, 4 x 512 | f32 | 2000.0 (1000.0-4000.0) |",
                     "**1.50** (0.75-3.00)", "| 12 | 16384 | bf16 | with backward |", "| f32 | full | 100 | 800 | **0.12** |", "80 %", "under 20"):
            self.assertIn(part, page)

    def test_parts_may_lack(self):
        self.assertNotIn("##", text.page({}, NOW))
        found = samples()
        del found["train gpt2 bf16"], found["attention 16384"]
        for r in found.values():  # Tilia alone
            for row in r["data"].get("rounds", []):
                if isinstance(row, dict):
                    for k in ("eager", "compile", "torch"):
                        row.pop(k, None)
        self.assertIn("| GPT-2 124M, 1 x 1024 | f32 | 2000.0 (1000.0-4000.0) | - | - | **-** |", text.page(found, NOW))

    def test_publishing_writes_three_files(self):
        root = tempfile.mkdtemp()
        try:
            os.mkdir(os.path.join(root, "docs"))
            for name in ("README.md", "README.zh-CN.md"):
                shutil.copy(os.path.join(os.path.dirname(HERE), name), root)
            for _ in range(2):  # what it wrote it finds again
                self.assertEqual(len(text.publish(root, samples(), NOW)), 3)
            read = lambda name: pathlib.Path(root, name).read_text(encoding="utf-8")
            self.assertIn("GPT-2 124M, 1 x 1024: **1.50 / 3.00** (1.50)", read("README.md"))
            self.assertIn("GPT-2 124M，1 x 1024：**1.50 / 3.00**（1.50）", read("README.zh-CN.md"))
            self.assertIn("## Read on", read("README.md"))
            rows = lambda name: [x.count("|") for x in read(name).split(text.BEGIN)[1].split(text.END)[0].splitlines() if x.startswith("|")]
            self.assertEqual(rows("README.md"), rows("README.zh-CN.md"))
            with open(os.path.join(root, "README.md"), "a") as f:
                f.write(text.BEGIN)
            before = read("docs/performance.md")
            with self.assertRaises(SystemExit):
                text.publish(root, {}, NOW)
            self.assertEqual(before, read("docs/performance.md"))
        finally:
            shutil.rmtree(root)

    def test_a_run_goes_on(self):
        class a:
            state = os.path.join(tempfile.mkdtemp(), "figures.jsonl")
        table.keep(a, {"part": "decode", **record({"rounds": []})})
        table.keep(a, {"part": "memory", "facts": {**NOW, "program": "another"}, "when": "", "data": {}})
        with open(a.state, "a") as f:
            f.write('{"part": "overh')  # a kill cut it off
        self.assertEqual(list(table.load(a, NOW)), ["decode"])
        shutil.rmtree(os.path.dirname(a.state))


if __name__ == "__main__":
    unittest.main()
