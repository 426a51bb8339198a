"""Tilia's attention inside PyTorch: a torch.autograd.Function over DLPack, no copies, trained with, and checked against
torch's scaled_dot_product_attention.

    python torch_autograd.py        # needs torch
"""

import torch
import torch.nn.functional as F

import tilia.ops as ops

# %% Forward and backward write into PyTorch's own memory


class TiliaAttention(torch.autograd.Function):
    """q (B, H, T, D), k, v (B, Hk, T, D): PyTorch's layout, read as it lies."""

    @staticmethod
    def forward(ctx, q, k, v, causal):
        q, k, v = q.detach(), k.detach(), v.detach()
        o = torch.empty_like(q)
        _, lse = ops.attention(q, k, v, causal=causal, layout="bhtd", return_lse=True, out=o)
        ctx.save_for_backward(q, k, v, o, torch.from_dlpack(lse))
        ctx.causal = causal
        return o

    @staticmethod
    def backward(ctx, do):
        q, k, v, o, lse = (x.detach() for x in ctx.saved_tensors)
        grads = tuple(torch.empty_like(x) for x in (q, k, v))
        ops.attention_backward(do.contiguous(), q, k, v, o, lse, causal=ctx.causal, layout="bhtd", out=grads)
        return (*grads, None)


def attention(q, k, v, causal=True):
    return TiliaAttention.apply(q, k, v, causal)


# %% The memory is shared, in both directions
x = torch.randn(2, 3)
view, _ = ops.from_dlpack(x)
assert view.ctypes.data == x.data_ptr()
y = torch.from_dlpack(ops.silu(x))
assert torch.allclose(y, F.silu(x), atol=1e-6)
assert torch.equal(torch.from_dlpack(ops.cast(x, "bf16")), x.bfloat16())

# %% The same numbers
torch.manual_seed(1)
for causal in (False, True):
    q, k, v = (torch.randn(2, 4, 100, 32, requires_grad=True) for _ in range(3))
    do = torch.randn(2, 4, 100, 32)
    mine = torch.autograd.grad(attention(q, k, v, causal), (q, k, v), do)
    theirs = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v, is_causal=causal), (q, k, v), do)
    worst = max((a - b).abs().max().item() for a, b in zip(mine, theirs))
    o = (attention(q, k, v, causal) - F.scaled_dot_product_attention(q, k, v, is_causal=causal)).abs().max().item()
    print(f"causal {causal}: outputs differ by {o:.1e}, gradients by {worst:.1e}")
    assert o < 2e-6 and worst < 1e-5

# %% A small network trains alike with either


class Net(torch.nn.Module):
    def __init__(self, attend):
        super().__init__()
        self.attend = attend
        self.embed, self.qkv = torch.nn.Embedding(16, 32), torch.nn.Linear(32, 96)
        self.out, self.head = torch.nn.Linear(32, 32), torch.nn.Linear(32, 16)

    def forward(self, ids):
        x = self.embed(ids)
        q, k, v = self.qkv(x).view(*ids.shape, 3, 4, 8).permute(2, 0, 3, 1, 4)
        o = self.attend(q, k, v).transpose(1, 2).reshape(x.shape)
        return self.head(torch.tanh(x + self.out(o)))


def train(attend, steps=60):
    torch.manual_seed(2)
    net = Net(attend)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    ids = torch.randint(0, 16, (8, 12)).repeat(1, 2)  # the second half repeats the first: attention finds it
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


a = train(attention)
b = train(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True))
print(f"loss with tilia {a[0]:.4f} -> {a[-1]:.4f}, with torch {b[0]:.4f} -> {b[-1]:.4f}")
assert a[-1] < a[0] / 2 and abs(a[-1] - b[-1]) < 1e-2 and abs(a[5] - b[5]) < 1e-4
