"""Operators on arrays: shapes, number types, memory shared and not, errors, overhead's causes."""

import gc
import resource
import threading

import numpy as np
import pytest

import tilia
import tilia.ops as ops


def rand(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("f4")


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 3, 4), (2, 1, 3, 2), (1, 2, 1, 3, 2)])
def test_any_leading_dimensions(lead):
    x, w = rand(*lead, 8), rand(8)
    want = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w
    y = ops.rmsnorm(x, w)
    assert y.shape == x.shape
    np.testing.assert_allclose(y, want, atol=2e-6)
    dx, dw = ops.rmsnorm.vjp(y, x, w)
    assert dx.shape == x.shape and dw.shape == (8,)
    q = rand(*lead, 5, 2, 8)
    assert ops.attention(q, q, q, causal=True).shape == q.shape
    assert ops.linear(x, rand(6, 8)).shape == lead + (6,)
    ids = np.zeros(lead + (3,), np.int64)
    assert ops.embedding(ids, rand(4, 8)).shape == lead + (3, 8)


def test_strided_views_are_read_in_place_or_copied_but_right():
    wide = rand(4, 20)
    for view in (wide[:, :8], wide[::2, 3:11], wide[:, ::2][:, :8], wide[::-1, :8], np.broadcast_to(wide[0, :8], (4, 8))):
        np.testing.assert_array_equal(ops.silu(view), ops.silu(np.ascontiguousarray(view)))
        np.testing.assert_array_equal(ops.softmax(view), ops.softmax(np.ascontiguousarray(view)))


def test_f64_is_computed_in_f64():
    x = rand(3, 8).astype("f8")
    y = ops.softmax(x)
    assert y.dtype == np.float64
    assert abs(y.sum(-1) - 1).max() < 1e-15


def test_out_is_written():
    x = rand(3, 8)
    out = np.empty_like(x)
    assert ops.silu(x, out=out) is out
    np.testing.assert_array_equal(out, ops.silu(x))
    with pytest.raises(ValueError, match="must be"):
        ops.silu(x, out=np.empty((3, 9), "f4"))


def test_bf16_goes_in_and_out():
    x, w = rand(4, 16), rand(8, 16)
    xb = ops.cast(x, "bf16")
    y = ops.linear(xb, ops.cast(w, "bf16"))
    back = np.asarray(ops.cast(y, "f32"))
    assert abs(back - x @ w.T).max() < 0.1
    assert y.shape == (4, 8)
    dx, dw, _ = ops.linear.vjp(y, xb, ops.cast(w, "bf16"), None)
    assert dx.shape == (4, 16) and dw.shape == (8, 16)
    assert abs(np.asarray(ops.cast(dw, "f32")) - back.T @ x).max() < 0.5


def test_array_survives_dlpack():
    if not hasattr(np, "from_dlpack"):
        pytest.skip("NumPy is too old")

    class Exports:
        """An array that has DLPack alone."""

        def __init__(self, a):
            self.a = a

        def __dlpack__(self, **options):
            return self.a.__dlpack__()

        def __dlpack_device__(self):
            return self.a.__dlpack_device__()

    x = rand(4, 6)
    view, number = ops.from_dlpack(Exports(x))
    assert number == 1 and np.shares_memory(view, x)
    np.testing.assert_array_equal(ops.relu(Exports(x)), ops.relu(x))
    out = np.empty_like(x)
    ops.relu(Exports(x), out=Exports(out))
    np.testing.assert_array_equal(out, ops.relu(x))
    view, _ = ops.from_dlpack(Exports(x[:, ::2]))
    np.testing.assert_array_equal(view, x[:, ::2])
    a = ops.Array(np.arange(6, dtype=np.uint16).reshape(2, 3))
    again, number = ops.from_dlpack(a)
    assert number == 3 and np.shares_memory(again, a._raw)
    del a, view
    gc.collect()
    assert again.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_errors_have_classes_and_places():
    with pytest.raises(tilia.ShapeError) as e:
        ops.linear(rand(2, 3), rand(4, 5))
    assert isinstance(e.value, ValueError) and e.value.code == "SHAPE" and e.value.tensor == "linear"
    q = rand(1, 8, 2, 4)
    with pytest.raises(tilia.ShapeError) as e:
        ops.attention(q, q[:, :4], q)
    assert str(e.value).startswith("attention: v is")
    for f in (ops.attention, lambda *x, **o: ops.attention_backward(q, *x, q, rand(1, 2, 8), **o)):
        with pytest.raises(TypeError, match=r"attention(_backward)?\(\) has no argument 'windo'"):
            f(q, q, q, windo=3)
    with pytest.raises(ValueError, match="outside the table"):
        ops.embedding([7], rand(4, 5))
    with pytest.raises(ValueError, match="kind"):
        ops.act(rand(3), "swish")
    with pytest.raises(tilia.DtypeError):
        ops.silu(np.array(["a"]))
    with pytest.raises(tilia.ShapeError):
        ops.silu.vjp(rand(3), rand(4))
    with pytest.raises(ValueError, match="no operator"):
        ops.apply("nonsense", rand(3))
    with pytest.raises(ValueError, match="attribute"):
        ops.apply("act", rand(3), size=1)
    with pytest.raises(ValueError, match="read-only"):
        frozen = np.zeros(3, "f4")
        frozen.flags.writeable = False
        ops.adamw_step(frozen, frozen, frozen, frozen, step=1)


def test_dropout_repeats_itself():
    x = np.ones((50, 40), "f4")
    y = ops.dropout(x, 0.25, seed=7, step=3)
    assert abs((y == 0).mean() - 0.25) < 0.05
    np.testing.assert_array_equal(ops.dropout.vjp(x, x, 0.25, seed=7, step=3)[0], y)
    assert (ops.dropout(x, 0.25, seed=8, step=3) != y).any()


def test_empty_arrays():
    assert ops.silu(np.empty((0, 4), "f4")).shape == (0, 4)


def test_gradient_with_respect_to_documents_and_sinks():
    q, doc = rand(1, 6, 2, 8), np.array([[0, 0, 0, 3, 3, 3]])
    o = ops.attention(q, q, q, causal=True, documents=doc)
    np.testing.assert_allclose(o[:, 3:], ops.attention(q[:, 3:], q[:, 3:], q[:, 3:], causal=True), atol=1e-6)
    sinks = rand(2)
    o, lse = ops.attention(q, q, q, sinks=sinks, return_lse=True)
    got = ops.attention_backward(np.ones_like(o), q, q, q, o, lse, sinks=sinks)
    assert len(got) == 4 and got[3].shape == (2,)


def test_threads_share_an_engine():
    x = rand(64, 64)
    want, wrong = ops.softmax(x), []

    def work(k):
        for _ in range(100):
            if (ops.softmax(x[: 1 + k]) != want[: 1 + k]).any():
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_nothing_leaks_over_ten_thousand_calls():
    x, w = rand(16, 32), rand(32)
    q = rand(1, 16, 2, 16)

    def use(n):
        for i in range(n):
            ops.rmsnorm(x, w)
            ops.rmsnorm.vjp(x, x, w)
            ops.attention(q, q, q, causal=True)
            if i % 10 == 0:  # shapes come and go
                ops.silu(np.empty((1 + i % 700, 8), "f4"))

    use(1000)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    use(3400)
    gc.collect()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 6000  # kB
