"""Every process has the same weights, or its part of them: how that is made true for a loop of one's own, and checked.

Gradients are weighed by how many samples each process had, and added in the order of the ranks: the mean over the
samples, not over the processes, with bits that do not hang on buckets, which in DistributedDataParallel are others
after a restart, nor on what a backend makes of a sum. FSDP2 takes its reduce-scatter from us.
https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html
https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

import gc
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.reduction import ForkingPickler
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from unbroken.errors import UsageError
from unbroken.train.data.sharing import Sharing, sharing_of
from unbroken.train.distributed.world import World, in_order
from unbroken.train.progress import Progress
from unbroken.train.state.placement import is_sharded, mesh_of
from unbroken.train.step import StepInProgress

OLD_FSDP = "FullyShardedDataParallel"

_TAKING_PART: WeakKeyDictionary[DistributedDataParallel, Replicas] = WeakKeyDictionary()


class Replicas:
    """What is tracked, as all processes of a training have it."""

    def __init__(self, world: World, current: StepInProgress) -> None:
        self._world, self._current = world, current
        self._weights: set[int] = set()  # the identities of those that are tracked
        self._watch: RemovableHandle | None = None  # over the wrappers that are made in the loop

    def require_supported(self, tracked: Mapping[str, Any]) -> None:
        """Refuse networks that are sharded in a way that cannot be saved, or that nothing adds up."""
        for name, part in tracked.items():
            sharded = mesh_of([part]) is not None
            for path, module in part.named_modules() if isinstance(part, nn.Module) else ():
                if (found := self._why_not(module, sharded=sharded)) is not None:
                    expected, what = found
                    raise UsageError(
                        f"run.track({name}=...)",
                        "it is sharded over the processes in a way that is not supported",
                        expected=expected,
                        found=f"{what} ({path})" if path else what,
                        do="Every module of it either whole with DistributedDataParallel, or fully_shard of FSDP2.",
                    )

    def _why_not(self, module: nn.Module, *, sharded: bool) -> tuple[str, str] | None:
        """What was expected of a module that is sharded otherwise, and what it is; None where it is as it may be."""
        if type(module).__name__ == OLD_FSDP:
            return "torch.distributed.fsdp.fully_shard", OLD_FSDP
        weights: Iterator[Any] = module.parameters(recurse=False)
        for weight in weights:
            if is_sharded(weight):
                mesh, placed = weight.device_mesh, weight.placements
                ranks = mesh.mesh.flatten().tolist()
                if mesh.ndim != 1 or ranks != [*range(self._world.size)]:
                    return "one mesh of one dimension, of all processes in their order", f"a mesh {mesh.mesh.tolist()}"
                if not placed[0].is_shard() and not placed[0].is_replicate():
                    return "weights that are sharded along a dimension", str(placed[0])
            elif sharded and weight.requires_grad:
                return (
                    "fully_shard of the whole model too: nothing adds up the gradients of the rest",
                    "weights that are whole",
                )
        return None

    def take_part(self, tracked: Mapping[str, Any]) -> None:
        """Take part in how the wrappers of tracked weights add their gradients up.

        They are found among all objects: many scripts track the network inside (`net.module`), whose bits depend on the
        wrapper as much. One that is made later, in the loop, is found when it is called first.
        """
        if self._world.size == 1:
            return
        networks = [part for part in tracked.values() if isinstance(part, nn.Module)]
        for each in (module for network in networks for module in network.modules()):
            if hasattr(each, "set_custom_reduce_scatter") or type(each).__name__.startswith("FSDP"):
                self._take_over(each)
            elif not isinstance(each, _BatchNorm) or isinstance(each, nn.SyncBatchNorm):
                continue
            elif each.track_running_stats and mesh_of(networks) is not None:
                raise UsageError(
                    "FSDP2",
                    "batch normalisation has running statistics of its own in each process, and nothing shares them",
                    expected="a normalisation of each sample: LayerNorm, GroupNorm",
                    found=type(each).__name__,
                    do="Replace it before fully_shard.",
                )
        self._weights = {id(weight) for network in networks for weight in network.parameters()}
        for each in gc.get_objects():
            if issubclass(type(each), DistributedDataParallel):
                self._take_part(each)

        self._watch = register_module_module_registration_hook(self._made)

    def _made(self, module: nn.Module, _name: str, _inside: nn.Module | None) -> None:
        if isinstance(module, DistributedDataParallel):

            def is_called(wrapper: DistributedDataParallel, _given: object) -> None:
                first.remove()
                self._take_part(wrapper)

            first = module.register_forward_pre_hook(is_called)

    def let_go(self) -> None:
        """The session is over: nothing that is made is looked at any more."""
        if self._watch is not None:
            self._watch.remove()

    def _take_part(self, module: DistributedDataParallel) -> None:
        if self._weights.isdisjoint(map(id, module.parameters())):
            return
        hooked = module in _TAKING_PART
        _TAKING_PART[module] = self
        if hooked:  # in an earlier run of this process
            return
        where = "DistributedDataParallel"
        try:
            module.register_comm_hook(ref(module), lambda wrapper, bucket: _TAKING_PART[wrapper()].added(bucket))
        except RuntimeError as error:
            raise UsageError(
                where,
                "its gradients are added up by a hook of its own, and no second one can be given",
                expected="a DistributedDataParallel without register_comm_hook",
                found=str(error).splitlines()[0][:200],
                do="Leave the hook out: what it does to gradients would not be the same after a restart.",
            ) from error
        if not module.broadcast_buffers and any(True for _ in module.buffers()):
            raise UsageError(
                where,
                "with broadcast_buffers=False each process has buffers of its own, and a checkpoint holds one set",
                expected="DistributedDataParallel(..., broadcast_buffers=True), or torch.nn.SyncBatchNorm",
                do="Leave broadcast_buffers=False out.",
            )

    def _take_over(self, module: Any) -> None:
        """Add up the gradients of a module that FSDP2 shards."""
        if not hasattr(module, "set_custom_reduce_scatter"):
            raise UsageError(
                "FSDP2",
                "this torch lets nobody weigh the gradients of sharded modules: parts of unequal size would be wrong",
                expected="torch 2.9 or later",
                found=torch.__version__,
                do="Upgrade torch.",
            )
        module.set_custom_reduce_scatter(OrderedReduceScatter(self._world, self._current))
        module.set_gradient_divide_factor(1.0)  # by which nothing is divided: the weights are ours
        module.set_force_sum_reduction_for_comms(True)

    def added(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """The gradients of a bucket over all samples of all processes."""
        summed = bucket.buffer().mul_(weight_of(self._current, self._world))
        summed.copy_(self._world.ordered_sum([summed]))
        devices = [summed.device] if summed.is_cuda else []  # one that is not named may not lie in the result
        done: torch.futures.Future[Tensor] = torch.futures.Future(devices=devices)
        done.set_result(summed)
        return done

    def require_same(self, tracked: Mapping[str, Any], *, draws_itself: bool) -> None:
        """Raise UsageError unless all processes begin with the same weights, and generators that nothing seeds again.

        A checkpoint holds those of rank 0. A loop over batches seeds them for each; one that draws its own does not.
        """
        if self._world.size == 1:
            return
        here = {name: _crc32(part, generators=draws_itself) for name, part in tracked.items()}
        for rank, there in enumerate(self._world.gather_values(here)):
            if there.keys() != here.keys():
                raise UsageError(
                    "run.track",
                    f"process {rank} tracks other parts than process {self._world.rank}",
                    expected="the same in all",
                    found=f"{', '.join(sorted(here.keys() ^ there.keys()))} in one of them alone",
                    do="Call run.track(...) in every process, with the same names: rank 0 alone writes.",
                )
            if names := [name for name in here if here[name] != there[name]]:
                raise UsageError(
                    "run.track",
                    f"process {rank} begins with other weights than process {self._world.rank}"
                    if any(isinstance(tracked[name], nn.Module) for name in names)
                    else f"process {rank} begins with other random numbers than process {self._world.rank}, "
                    "and would go on with its",
                    expected="the same in all",
                    found=f"other values in {', '.join(names)}",
                    do="Seed before the model is built, or wrap it in DistributedDataParallel before run.track(...); "
                    "draw what is of one process from the global streams, which are seeded for each step and process.",
                )

    def require_same_batches(self, said: Mapping[str, object]) -> None:
        """Raise UsageError where a process asks for other batches: it would take other samples, or end earlier."""
        for rank, there in enumerate(self._world.gather_values(dict(said))):
            if names := [name for name in said if said[name] != there[name]]:
                raise UsageError(
                    "run.batches",
                    f"process {rank} asks for other batches than process {self._world.rank}",
                    expected="the same in all: each is given its part of every batch",
                    found="; ".join(f"{name} {there[name]} and {said[name]}" for name in names),
                    do="Give every process the whole data set and the same arguments.",
                )


class OrderedReduceScatter:
    """What FSDP2 reduces gradients with: weighed by samples, and added in the order of the ranks."""

    allocate = staticmethod(torch.empty)  # of what is sent and received

    def __init__(self, world: World, current: StepInProgress) -> None:
        self._world, self._current = world, current

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, **_how: Any) -> None:
        """Leave the sum of this process's part in the output; the input has a part for each, one after the other."""
        weighed = input_tensor.mul_(weight_of(self._current, self._world)).cpu()
        output_tensor.copy_(in_order(self._world.exchange(weighed.view(self._world.size, -1))))


def weight_of(current: StepInProgress, world: World) -> float:
    """What this process's part of a micro-batch weighs among those of all."""
    return current.weights[-1] if current.weights else 1.0 / world.size


def _crc32(part: Any, *, generators: bool) -> int:
    """Of all weights of a network, or of a generator's state; 0 of anything else."""
    found = 0
    if generators and isinstance(part, torch.Generator):
        return zlib.crc32(part.get_state().numpy().data)
    if generators and isinstance(part, np.random.Generator | np.random.RandomState | random.Random):
        return zlib.crc32(ForkingPickler.dumps(part))
    if isinstance(part, nn.Module):
        for tensor in part.parameters():
            if type(tensor) is nn.Parameter and tensor.device.type != "meta":
                found = zlib.crc32(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data, found)
    return found


def shared_as_recorded(world: World, progress: Progress, shards: int | None, say: Callable[[str], None]) -> Sharing:
    """How the processes share micro-batches; a run that began with shards of its own keeps them."""
    recorded = progress.shards or None
    if recorded and shards is None:
        say(f"this run keeps its {recorded} shards of each micro-batch (--exact-processes {recorded})")
    progress.shards = recorded or shards or 0
    return sharing_of(world.rank, world.size, progress.shards or None)
