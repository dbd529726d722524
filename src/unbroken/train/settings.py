"""What a config says of an optimizer and a scaler counts after a resume, too: their saved states hold the old one.

An optimizer's state carries every setting of its groups (weight decay, betas, eps), a scaler's its factors, and loading
either puts back what the config said when the state was saved.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

OF_SCHEDULES = frozenset({"params", "lr", "initial_lr"})


class GroupSettings:
    """The settings of an optimizer's groups as it was built, but for rates and what else a schedule moves."""

    def __init__(self, optimizer: Optimizer, *, moved: Collection[str] = ()) -> None:
        self._optimizer = optimizer
        apart = OF_SCHEDULES | set(moved)
        self._built = [{key: value for key, value in g.items() if key not in apart} for g in optimizer.param_groups]

    def put_back(self) -> list[str]:
        """Set them again, after a state was loaded; returns what that changed, as `weight_decay 0.01 -> 0.05`."""
        changed = dict[str, str]()
        for group, built in zip(self._optimizer.param_groups, self._built, strict=True):
            for key, value in built.items():
                before = group.get(key, value)
                if _plain(before) != _plain(value):
                    changed.setdefault(key, f"{key} {_plain(before)} -> {_plain(value)}")
                group[key] = value
        return list(changed.values())


class ConfiguredScaler(GradScaler):
    """A gradient scaler that begins anew where its config says something else than the one that was saved.

    With `static` the scale is that of the config in every step; else it is the first one, and adapts.
    """

    def __init__(self, device: str, *, init_scale: float = 2.0**16, static: bool = False) -> None:
        super().__init__(device, init_scale=init_scale)
        self._configured = {"configured_scale": init_scale, "static": static}
        self.begins_anew = False  # under another config than that of the state it was given

    def update(self, new_scale: Any = None) -> None:
        """As in torch; a static scale stays."""
        super().update(self._configured["configured_scale"] if self._configured["static"] else new_scale)

    def state_dict(self) -> dict[str, Any]:
        """As in torch, with what the config said."""
        return {**super().state_dict(), **self._configured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the scale of a state that was saved under the same config, or whose config is not known."""
        self.begins_anew = not {**self._configured, **state_dict}.items() >= self._configured.items()
        if not self.begins_anew:
            super().load_state_dict({key: value for key, value in state_dict.items() if key not in self._configured})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
