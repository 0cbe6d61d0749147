"""`Host` over PyTorch."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from creditbench.ops.host import Host, UncountableError, Work


class TorchHost(Host):
    """Work and memory are counted in a run, by a dispatch mode that sees every operation."""

    traces: ClassVar[bool] = False
    # Draws come from a generator, which `torch.func.vmap` does not support.
    draws_together: ClassVar[bool] = False

    def set_threads(self, count):
        torch.set_num_threads(count)

    def forget(self):
        """PyTorch keeps nothing beside the compiled functions themselves."""

    def devices(self):
        cards = range(torch.cuda.device_count())
        return ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in cards)]

    def pack(self, leaf):
        """A leaf of a tree, a tensor, keys or a number, as a NumPy array of its own: for a checkpoint."""
        if isinstance(leaf, torch.Tensor):
            return leaf.detach().cpu().numpy().copy()
        # A key is a whole number of 64 bits without a sign, and several are a list.
        number = leaf[0] if isinstance(leaf, list) and leaf else leaf
        return np.array(leaf, np.uint64 if type(number) is int and number >= 0 else None)

    def unpack(self, array, like):
        """The leaf that `pack` was given, where `like` is one of the same kind."""
        if isinstance(like, torch.Tensor):
            # With the strides of `like`: other strides could be added up in another order.
            return torch.empty_like(like).copy_(torch.from_numpy(array))
        return array.tolist()

    def count(self, f, *arguments):
        return _of_torch(f, arguments)

    def algorithm_bytes(self, f, *arguments):
        def storages(tree: Any) -> list[Any]:
            return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

        class Watch(TorchDispatchMode):
            """Counts a storage from the operation that makes it until it is freed."""

            def __init__(self) -> None:
                super().__init__()
                self.alive: dict[int, Any] = {}  # the storage's address -> a weak reference
                self.now = self.peak = 0

            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                found = function(*args, **(kwargs or {}))
                # An argument that is not known was there before: neither it nor its views count.
                before = {storage._cdata for storage in storages((args, kwargs))}
                for storage in storages(found):
                    key, size = storage._cdata, storage.nbytes()
                    if key not in before and key not in self.alive:
                        self.alive[key] = weakref.ref(storage, partial(self.free, key, size))
                        self.now += size
                self.peak = max(self.peak, self.now)
                return found

            def free(self, key: int, size: int, _: Any) -> None:
                del self.alive[key]
                self.now -= size

        with torch.no_grad(), Watch() as watch:
            results = f(*arguments)
        # `Outer` is a NamedTuple of tensors, so its factors are counted, not the product.
        old = {s._cdata: s.nbytes() for s in storages(results) if s._cdata not in watch.alive}
        return watch.peak + sum(old.values())

    def device_peak(self):
        device = self.ops.from_numpy(np.zeros(())).device
        if device.type != "cuda":
            return lambda: None
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: int(torch.cuda.max_memory_allocated(device))

    @contextlib.contextmanager
    def programs(self) -> Iterator[list[str]]:
        yield []

    def kernels(self, f, *arguments):
        count = 0

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                nonlocal count
                count += not function.is_view
                return function(*args, **(kwargs or {}))

        with Count():
            f(*arguments)
        return count

    def seconds(self, launch, like):
        device = tree_leaves(like)[0].device
        if device.type != "cuda":
            return None
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)
        start.record(stream)
        launch()
        end.record(stream)
        end.synchronize()
        return start.elapsed_time(end) / 1e3  # from milliseconds

    def step_by_step(self):
        return torch.no_grad()

    def without_tape(self):
        return torch.no_grad()

    def single_precision(self):
        return contextlib.nullcontext()

    def reverse_modes(self):
        found = [(torch.autograd, n, f"torch.autograd.{n}") for n in ("grad", "backward")]
        found.append((torch.Tensor, "backward", "Tensor.backward"))
        names = ("grad", "grad_and_value", "vjp", "jacrev", "hessian")
        return [*found, *((torch.func, name, f"torch.func.{name}") for name in names)]


# -- work ------------------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _product(flops: int, moved: int) -> Work:
    return Work(flops, flops, moved, moved, 1)


#: Operations that move or make data and compute nothing. Views are treated apart.
_TORCH_MOVES = _words(
    "_to_copy cat clone constant_pad_nd copy copy_ embedding empty empty_like empty_strided eye fill "
    "fill_ flip full full_like gather index index_select lift_fresh new_empty new_empty_strided new_full "
    "new_ones new_zeros ones ones_like repeat scalar_tensor scatter slice_scatter stack zero_ zeros "
    "zeros_like arange roll tril triu"
)
_TORCH_REDUCES = _words(
    "all amax amin any argmax argmin cumprod cumsum linalg_vector_norm logsumexp max mean min norm prod "
    "std sum var"
)
_TORCH_UNKNOWN = _words(
    "_linalg_eigh _linalg_svd linalg_eig linalg_qr sort topk _fft_c2c _fft_r2c _fft_c2r bernoulli"
)


def _of_torch(f: Callable[..., Any], arguments: tuple[Any, ...]) -> Work:
    def tensors(tree: Any) -> list[Any]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]

    def size(found: list[Any]) -> int:
        return sum(x.numel() * x.element_size() for x in found)

    def of(function: Any, args: Any, kwargs: Any, found: Any) -> Work:
        packet = function.overloadpacket
        name = packet.__name__
        if function.is_view or name in ("_unsafe_view", "detach", "alias"):
            return Work(operations=1)
        outputs = tensors(found)
        inputs = tensors((args, kwargs))
        entries, moved = sum(x.numel() for x in outputs), size(inputs) + size(outputs)
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=found)
            return _product(flops, moved) + _addition(name, entries)
        if name in ("mv", "addmv", "addmv_", "dot", "vdot", "addr", "addr_", "addmm_", "baddbmm_"):
            # Products that the registry lacks. The factors are the last two tensors; an outer product has
            # depth 1.
            depth = 1 if "addr" in name else args[-1].shape[0] if name[0] != "b" else args[-1].shape[1]
            return _product(2 * entries * depth, moved) + _addition(name, entries)
        if name in (
            "_linalg_solve_ex",
            "linalg_solve_triangular",
            "linalg_lu_factor_ex",
            "linalg_cholesky_ex",
        ):
            n = inputs[0].shape[-1]
            factor = 0 if "triangular" in name else n**3 * 2 // (6 if "cholesky" in name else 3)
            columns = inputs[1].numel() // n if len(inputs) > 1 else 0
            solves = 1 if "triangular" in name else 2
            return _product(inputs[0].numel() // n**2 * factor + solves * n * columns * n, moved)
        if name in _TORCH_UNKNOWN:
            raise UncountableError(
                f"the work of the PyTorch operation {name!r} is not known: write the rule with products"
            )
        if name in _TORCH_MOVES:
            return Work(bytes=2 * size(outputs), operations=1)
        if name in _TORCH_REDUCES:
            entries = sum(x.numel() for x in inputs[:1])
        if name in ("addcmul", "addcmul_", "addcdiv", "addcdiv_", "lerp", "lerp_"):
            entries *= 2
        return Work(entries, 0, moved, 0, 1)

    class Count(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.total = Work()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            self.total += of(function, args, kwargs or {}, found)
            return found

    with torch.no_grad(), Count() as counted:
        f(*arguments)
    return counted.total


def _addition(name: str, entries: int) -> Work:
    """The work of an addition that is fused with a product."""
    return Work(flops=entries) if "add" in name else Work()
