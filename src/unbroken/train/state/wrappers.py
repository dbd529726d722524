"""Names without what wrappers put before them: a run goes on with `torch.compile` or `DataParallel`, or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

WRAPPERS = (DataParallel, DistributedDataParallel)
COMPILED, PARALLEL = "_orig_mod.", "module."


def plain_names(module: nn.Module) -> Callable[[str], str]:
    """What gives the name without wrappers of an entry of the module's `state_dict`, wherever in it these are."""
    prefixes: list[tuple[str, str]] = []
    for path, inner in module.named_modules():
        parallel = isinstance(inner, WRAPPERS)
        if parallel or COMPILED.removesuffix(".") in inner._modules:
            own = PARALLEL if parallel else COMPILED
            prefixes.insert(0, (f"{path}.{own}".lstrip("."), own))  # inner ones come later, and are taken off first

    def plain(name: str) -> str:
        for prefix, own in prefixes:
            if name.startswith(prefix):
                name = prefix.removesuffix(own) + name.removeprefix(prefix)
        return name

    return plain


def plainly_named(part: Any) -> list[tuple[str, nn.Module]]:
    """The modules of a part with their names without wrappers, a wrapper before what it wraps, under one name."""
    if not isinstance(part, nn.Module):
        return []
    plain = plain_names(part)
    return [(plain(f"{path}.".lstrip(".")).removesuffix("."), module) for path, module in part.named_modules()]


def plain_state(module: nn.Module) -> dict[str, Any]:
    """The `state_dict` under the names without wrappers."""
    plain = plain_names(module)
    return {plain(name): value for name, value in module.state_dict().items()}


def load_plain(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state whose names have no wrappers."""
    plain = plain_names(module)
    own = {plain(name): name for name in module.state_dict()}
    module.load_state_dict({own.get(name, name): value for name, value in state.items()})


def named_alike(saved: Mapping[str, Any], module: nn.Module) -> dict[str, Any]:
    """A saved state under the module's names without wrappers, also one that was saved with them."""
    own = plain_state(module)

    def bare(name: str) -> str:
        unwrapped = name.removeprefix(COMPILED).removeprefix(PARALLEL).replace(COMPILED, "")
        return unwrapped if name not in own and unwrapped in own else name

    return {bare(name) if isinstance(name, str) else name: value for name, value in saved.items()}
