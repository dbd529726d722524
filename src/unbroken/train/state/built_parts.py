"""Which weights tracked parts have: a layer that is added or replaced after `run.track` is in no later session's plan.

Between `run.track` and the loop it is refused: the first session would go on, and each later one would be refused, or
put the saved weights into a layer that is then replaced. In mid-run it is named at the save that holds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from unbroken.errors import UsageError
from unbroken.train.state.wrappers import plain_names, plain_state

MOST_NAMED = 3


class BuiltParts:
    """The names of all weights of what is tracked, and the parameters themselves, as they were known last."""

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        self._tracked = tracked  # it grows
        self._known: dict[str, dict[str, Any]] = {}

    def follow(self, tracked: Mapping[str, Any]) -> None:
        """Note what these have now."""
        self._known |= {
            name: _weights(part) for name, part in tracked.items() if isinstance(part, nn.Module | Optimizer)
        }

    def require_same(self) -> None:
        """Raise UsageError where the loop begins with something else than was tracked."""
        for change in self._changes(nn.Module, Optimizer):
            raise UsageError(
                "run.track",
                change,
                do="Track it when it is complete: below the last line that adds or replaces a layer.",
            )

    def changes(self) -> Iterator[str]:
        """What was added to modules, replaced or removed since, each once: for the save that holds it."""
        for change in self._changes(nn.Module):
            yield (
                f"note: {change}: a resumed session has to make the same change before run.track(...), where run.step "
                "tells how far the run is"
            )

    def _changes(self, *kinds: type) -> Iterator[str]:
        for name, before in [*self._known.items()]:
            if not isinstance(self._tracked[name], kinds):
                continue
            now = _weights(self._tracked[name])
            found = [
                f"{_listed(names)} {words}"
                for words, names in {
                    "came later": [each for each in now if each not in before],
                    "went away": [each for each in before if each not in now],
                    "is another one": [each for each in now if each in before and now[each] is not before[each]],
                }.items()
                if names
            ]
            self._known[name] = now
            if found:
                yield f"`{name}` is not what it was when it was tracked: {', '.join(found)}"


def _weights(part: nn.Module | Optimizer) -> dict[str, Any]:
    """The parameters by name, and the names of other tensors of the state, which calls may well make anew."""
    if isinstance(part, Optimizer):
        groups = enumerate(part.param_groups)
        return {
            f"param_groups[{at}].params[{n}]": each for at, group in groups for n, each in enumerate(group["params"])
        }
    plain = plain_names(part)
    return dict.fromkeys(plain_state(part)) | {plain(name): each for name, each in part.named_parameters()}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
