"""Operators against PyTorch: vectors.npz, written by tools/make_vectors.py."""

import os

import numpy as np
import pytest

import tilia
import tilia.ops as ops

V = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors.npz"))
FORWARD, GRADIENT = 1e-6, 1e-5


def get(case, names):
    return [V[f"{case}/{n}"] for n in names]


def close(got, want, tolerance):
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    # absolute, and relative where numbers are large
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def check(case, f, names, forward=FORWARD, gradient=GRADIENT, vjp=None, **options):
    ins = get(case, names)
    close(f(*ins, **options), V[case + "/y"], forward)
    got = (vjp or f.vjp)(V[case + "/dy"], *ins, **options)
    assert len(got) == len(ins)
    for n, g in zip(names, got):
        if f"{case}/d{n}" in V:
            close(g, V[f"{case}/d{n}"], gradient)
        else:
            assert g is None


@pytest.mark.parametrize("case,f,names", [
    ("linear", ops.linear, "xwb"),
    ("rmsnorm", ops.rmsnorm, "xw"),
    ("layernorm", ops.layernorm, "xwb"),
    ("silu", ops.silu, "x"),
    ("gelu", ops.gelu, "x"),
    ("gelu_tanh", ops.gelu_tanh, "x"),
    ("relu", ops.relu, "x"),
    ("relu2", ops.relu2, "x"),
    ("sigmoid", ops.sigmoid, "x"),
    ("tanh", ops.tanh, "x"),
    ("softmax", ops.softmax, "x"),
    ("softmax_huge", ops.softmax, "x"),
    ("swiglu", ops.swiglu, "gu"),
])  # fmt: skip
def test_rows(case, f, names):
    check(case, f, list(names))


def test_embedding():
    ids, t = get("embedding", ["ids", "t"])
    close(ops.embedding(ids, t), V["embedding/y"], FORWARD)
    none, dt = ops.embedding.vjp(V["embedding/dy"], ids, t)
    assert none is None
    close(dt, V["embedding/dt"], GRADIENT)


def test_rope():
    x, pos = get("rope", ["x", "pos"])
    close(ops.rope(x, pos), V["rope/y"], FORWARD)
    close(ops.rope.vjp(V["rope/dy"], x, pos)[0], V["rope/dx"], GRADIENT)


@pytest.mark.parametrize("case", ["full", "causal", "window", "any"])
@pytest.mark.parametrize("layout", ["bthd", "bhtd"])
def test_attention(case, layout):
    name = "attention_" + case
    options = {"full": {}, "causal": {"mask": "causal"}, "window": {"mask": "causal+window:3"},
               "any": {"mask": V["attention_any/mask"]}}[case]  # fmt: skip

    def turn(a):
        return np.ascontiguousarray(a.transpose(0, 2, 1, 3)) if layout == "bhtd" else a

    q, k, v, do = (turn(a) for a in get(name, ["q", "k", "v", "dy"]))
    o, lse = ops.attention(q, k, v, return_lse=True, layout=layout, **options)
    close(o, turn(V[name + "/y"]), FORWARD)
    close(lse, V[name + "/lse"], FORWARD)
    for g, n in zip(ops.attention_backward(do, q, k, v, o, lse, layout=layout, **options), "qkv"):
        close(g, turn(V[f"{name}/d{n}"]), GRADIENT)


def test_attention_masks_agree():
    """A boolean array that is a named pattern, the dense path and the name give the same."""
    q, k, v = get("attention_causal", "qkv")
    causal = np.tri(q.shape[1], dtype=bool)
    by_name = ops.attention(q, k, v, mask="causal")
    assert (ops.attention(q, k, v, mask=causal) == by_name).all()
    batched = np.broadcast_to(causal, (2, 1) + causal.shape)
    close(ops.attention(q, k, v, mask=batched), by_name, FORWARD)
    with pytest.raises(ValueError, match="window:N"):
        ops.attention(q, k, v, mask="diagonal")


def test_attention_that_sees_nothing():
    q, k, v = get("attention_causal", "qkv")
    mask = np.tri(q.shape[1], dtype=bool)
    mask[4] = False
    o, lse = ops.attention(q, k, v, mask=mask, return_lse=True)
    assert (o[:, 4] == 0).all() and np.isposinf(lse[:, :, 4]).all() and np.isfinite(o).all()
    g = ops.attention_backward(np.ones_like(o), q, k, v, o, lse, mask=mask)
    assert (g[0][:, 4] == 0).all() and all(np.isfinite(a).all() for a in g)


def test_multi_head_attention():
    names = ["x", "wq", "wk", "wv", "wo", "bq", "bk", "bv", "bo"]
    check("mha", ops.multi_head_attention, names, heads=3, causal=True)


def test_gau_and_flash():
    names = ["x", "wu", "wv", "wz", "gamma", "beta", "wo"]
    check("gau", ops.gau, names)
    check("flash", ops.flash, names, chunk=4)


def test_cross_entropy():
    z, t = get("cross_entropy", ["z", "t"])
    close(ops.cross_entropy(z, t, reduction="none"), V["cross_entropy/y"], FORWARD)
    close(ops.cross_entropy.vjp(V["cross_entropy/dy"], z, t, reduction="none"), V["cross_entropy/dz"], GRADIENT)
    close(ops.cross_entropy(z, t), V["cross_entropy_mean/y"], FORWARD)
    close(ops.cross_entropy.vjp(V["cross_entropy_mean/dy"], z, t), V["cross_entropy_mean/dz"], GRADIENT)
    close(ops.cross_entropy(z, t, smoothing=0.1), V["cross_entropy_smooth/y"], FORWARD)
    close(ops.cross_entropy.vjp(V["cross_entropy_smooth/dy"], z, t, smoothing=0.1), V["cross_entropy_smooth/dz"],
          GRADIENT)  # fmt: skip
    masked = np.array([[1.0, -np.inf, 2.0]], "f4")
    assert abs(ops.cross_entropy(masked, [2]) - np.log1p(np.exp(-1))) < 1e-6


def test_linear_cross_entropy():
    h, w, t = get("head", ["h", "w", "t"])
    loss, dh, dw, db = ops.linear_cross_entropy(h, w, t, grad=True)
    close(loss, V["head/y"], FORWARD)
    close(dh * V["head/dy"], V["head/dh"], GRADIENT)
    close(dw * V["head/dy"], V["head/dw"], GRADIENT)
    assert db is None


def test_clip_grad_norm():
    a, b = V["clip/a"].copy(), V["clip/b"].copy()
    assert abs(ops.clip_grad_norm([a, b], 1.0) - V["clip/norm"]) < 1e-5
    close(a, V["clip/ca"], FORWARD)
    close(b, V["clip/cb"], FORWARD)


def test_schedule_and_1000_steps_of_adamw():
    p, target, curve = (V["adamw/" + n].copy() for n in ("p", "target", "curve"))
    m, v = np.zeros_like(p), np.zeros_like(p)
    for n in range(1000):
        lr = ops.schedule(n, lr=1e-2, min_lr=1e-3, warmup=100, steps=1000)
        assert abs(lr - V["adamw/lrs"][n]) < 1e-8
        g = curve * (p - target) + np.float32(0.1) * np.sin(np.float32(n)) * target
        ops.adamw_step(p, m, v, g, step=n + 1, lr=lr, betas=(0.9, 0.95), weight_decay=0.1)
        assert not g.any()
        if n % 100 == 99:
            close(p, V["adamw/trace"][n // 100], 1e-4)


def test_muon():
    close(ops.newton_schulz(V["muon/g"]), V["muon/o"], 1e-5)
    p, b, g = np.zeros((12, 7), "f4"), np.zeros((12, 7), "f4"), V["muon/g"]
    ops.muon_step(p, b, g, lr=0.1)
    close(b, 0.05 * g, 1e-6)
    close(p, -0.1 * (12 / 7) ** 0.5 * V["muon/o"], 1e-5)


@pytest.mark.skipif("llama/ids" not in V, reason="the vectors were made without transformers")
class TestLlama:
    config = {"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "max_position_embeddings": 32, "tie_word_embeddings": False, "rms_norm_eps": 1e-6}  # fmt: skip
    weights = {k[8:]: V[k] for k in V.files if k.startswith("llama/p/")}

    def test_whole_model(self):
        f = ops.model(self.config, self.weights)
        y, dx, grads = f.value_and_vjp(V["llama/dy"], V["llama/ids"])
        close(y, V["llama/y"], 1e-5)
        assert dx is None and set(grads) == set(self.weights)
        for n, g in grads.items():
            close(g, V["llama/g/" + n], 1e-4)
        assert (f(V["llama/ids"]) == y).all()

    def test_a_block(self):
        f = ops.block(self.config, {k: v for k, v in self.weights.items() if ".0." in k}, layer=0)
        close(f(V["llama/h0"]), V["llama/h1"], 1e-5)
        dx, grads = f.vjp(np.ones_like(V["llama/h0"]), V["llama/h0"])
        step = 2e-3
        d = np.random.default_rng(1).standard_normal(dx.shape).astype("f4")
        numeric = (f(V["llama/h0"] + step * d).sum(dtype="f8") - f(V["llama/h0"] - step * d).sum(dtype="f8")) / (2 * step)
        assert abs((dx * d).sum() - numeric) < 2e-2 * max(1, abs(numeric))
        assert grads["model.layers.0.mlp.up_proj.weight"].any()

    def test_missing_and_wrong_tensors_are_named(self):
        some = dict(self.weights)
        del some["model.layers.1.mlp.up_proj.weight"]
        with pytest.raises(ValueError, match="layers.1.mlp.up_proj.weight: is missing"):
            ops.model(self.config, some)
        some["model.layers.1.mlp.up_proj.weight"] = np.zeros((2, 2), "f4")
        with pytest.raises(ValueError, match="up_proj.weight: has shape"):
            ops.model(self.config, some)

    def test_documents_are_told_apart(self):
        f = ops.Module(tilia.Model.create(self.config))
        f.model.load_state_dict(self.weights)
        a, b = V["llama/ids"][0, :4], V["llama/ids"][1, :5]
        both = f(np.concatenate([a, b])[None], positions=[0, 1, 2, 3, 0, 1, 2, 3, 4], documents=[0] * 4 + [4] * 5)
        close(both[0, :4], f(a), 1e-5)
        close(both[0, 4:], f(b), 1e-5)
