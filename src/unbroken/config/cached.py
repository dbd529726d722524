"""A config that was found to fit its schema, and has not changed, is not checked again.

Checking takes pydantic and the whole schema, which is most of what a short command would do; what comes of it is plain
data, which is kept.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from unbroken.config.config_file import ConfigFile
from unbroken.config.effect import Effects
from unbroken.config.validated import Validated
from unbroken.storage.cache import Cache, loaded_code


def validate_cached(schema: str, file: ConfigFile, cache: Cache) -> Validated[Any]:
    """Do what `validate` does; where this config was found to fit before, without loading the schema.

    What does not fit is checked, and raised, each time.

    Args:
        schema: Address `module:class` of the section that all others hang from.
        file: What was read.
        cache: Where it is kept that it fits.
    Returns:
        The config; its `value` loads the schema when it is asked for.
    """
    module, _, name = schema.partition(":")
    about = ("config", schema, repr(file.tree))

    def section() -> Any:
        return getattr(import_module(module), name)

    def again() -> Any:
        from unbroken.config.validation import typed

        return typed(section(), file)

    if (known := cache.get(*about)) is not None:
        return Validated(
            typed=again,
            canonical=known["canonical"],
            ignored=known["ignored"],
            effects=Effects.of_plain(known["effects"]),
        )
    from unbroken.config.validation import validate

    found = validate(section(), file)
    plain = {"canonical": found.canonical, "ignored": found.ignored, "effects": found.effects.as_plain()}
    own = {part.partition(".")[0] for part in (module, __name__)}
    cache.put(*about, value=plain, files=loaded_code(*own))
    return found
