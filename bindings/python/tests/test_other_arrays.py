"""PyTorch and ml_dtypes, where they are installed."""

import numpy as np
import pytest

import tilia.ops as ops


def test_torch_goes_in_and_out_without_copies():
    torch = pytest.importorskip("torch")
    x, w = torch.randn(4, 16), torch.randn(8, 16)
    assert torch.allclose(torch.from_dlpack(ops.linear(x, w)), x @ w.T, atol=1e-5)
    view, number = ops.from_dlpack(x)
    assert view.ctypes.data == x.data_ptr() and number == 1
    out = torch.empty(4, 8)
    assert ops.linear(x, w, out=out) is out and torch.allclose(out, x @ w.T, atol=1e-5)
    b = torch.from_dlpack(ops.cast(x, "bf16"))
    assert b.dtype == torch.bfloat16 and torch.equal(b, x.bfloat16())
    y = torch.from_dlpack(ops.linear(x.bfloat16(), w.bfloat16()))
    assert y.dtype == torch.bfloat16 and torch.allclose(y.float(), x @ w.T, atol=0.2)
    # a transposed view is read as it lies, its last dimension contiguous
    q = torch.randn(2, 3, 10, 8)
    o = torch.from_dlpack(ops.attention(q, q, q, causal=True, layout="bhtd"))
    want = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    assert torch.allclose(o, want, atol=1e-5)
    assert ops.embedding(torch.tensor([1, 2]), w).shape == (2, 16)
    assert abs(ops.cross_entropy(x, torch.tensor([0, 1, 2, -100]))
               - torch.nn.functional.cross_entropy(x, torch.tensor([0, 1, 2, -100])).item()) < 1e-5  # fmt: skip


def test_torch_weights_load_into_a_model():
    torch = pytest.importorskip("torch")
    import tilia

    a, b = tilia.Model.create("preset:tiny", seed=1), tilia.Model.create("preset:tiny", seed=2)
    b.load_state_dict({k: torch.from_numpy(v).bfloat16() for k, v in a.state_dict().items()})
    for x, y in zip(a.state_dict().values(), b.state_dict().values()):
        np.testing.assert_allclose(x, y, rtol=0.01)


def test_ml_dtypes_come_and_go():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.linspace(-2, 2, 12, dtype="f4").reshape(3, 4)
    b = ops.cast(x, "bf16")
    assert b.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(b, x.astype(ml_dtypes.bfloat16))
    y = ops.silu(x.astype(ml_dtypes.bfloat16))
    assert y.dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(y.astype("f4"), ops.silu(x), atol=0.02)
    assert ops.cast(x, ml_dtypes.bfloat16).dtype == ml_dtypes.bfloat16
