"""Every operator of the library as a function on arrays: NumPy, or anything with DLPack on the CPU (PyTorch, JAX),
without copies where layouts allow; bf16 through DLPack or ml_dtypes. Results are NumPy arrays (``out=`` where memory is
given), which every array library takes by DLPack without copying.

A function ``f`` with a gradient has ``f.vjp(dy, *arrays, **options)``: the gradients of sum(dy * f(...)) for its arrays,
in their order. f64 arrays are computed by the scalar reference kernels: exact, and slow."""

from ._array import Array, asarray, from_dlpack
from ._attention import *  # noqa: F401,F403
from ._attention import __all__ as _attention_names
from ._gated import *  # noqa: F401,F403
from ._gated import __all__ as _gated_names
from ._module import *  # noqa: F401,F403
from ._module import __all__ as _module_names
from ._operator import Operator
from ._rows import *  # noqa: F401,F403
from ._rows import __all__ as _row_names
from ._training import *  # noqa: F401,F403
from ._training import __all__ as _training_names

__all__ = ["Array", "Operator", "asarray", "from_dlpack", *_attention_names, *_gated_names, *_module_names, *_row_names,
           *_training_names]  # fmt: skip
