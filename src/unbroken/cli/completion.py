"""`completion`: what a shell needs to complete commands, options and recipes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from shlex import quote

from unbroken.cli.args import CommandParser
from unbroken.cli.commands.demo import DATA, DEMOS, offers
from unbroken.cli.tree import COMMANDS, parser_of
from unbroken.launch.job import find_recipe, installed

SHELLS = ("bash", "zsh", "fish")
BASH = """\
_unbroken() {{
    local found="" word="${{COMP_WORDS[COMP_CWORD]}}"
    case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
{cases}
    esac
    [ "$COMP_CWORD" -gt 1 ] || found="{first}"
    COMPREPLY=($(compgen -W "$found" -- "$word"))
    [ "$COMP_CWORD" -eq 1 ] || [ "${{word:0:1}}" = - ] || COMPREPLY+=($(compgen -f -- "$word"))
}}
complete -o filenames -F _unbroken unbroken
"""
ZSH = """\
#compdef unbroken
_unbroken() {{
    local found=""
    case "${{words[2]}} ${{words[3]}}" in
{cases}
    esac
    (( CURRENT > 2 )) || found="{first}"
    compadd -- ${{=found}}
    (( CURRENT == 2 )) || [[ $PREFIX == -* ]] || _files
}}
if [ "${{funcstack[1]}}" = _unbroken ]; then _unbroken "$@"; else compdef _unbroken unbroken; fi
"""


def completion_options(parser: CommandParser) -> None:
    """A shell."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=" or ".join(SHELLS))
    parser.add_examples(
        "source <(unbroken completion bash)                                      for this terminal",
        "unbroken completion bash > ~/.local/share/bash-completion/completions/unbroken",
        "unbroken completion zsh > ~/.zfunc/_unbroken                            a folder of $fpath",
        "unbroken completion fish > ~/.config/fish/completions/unbroken.fish",
    )


def completion_command(options: argparse.Namespace) -> None:
    """Print a script that lets a shell complete the commands, their options, and those of the installed recipes."""
    if options.shell == "fish":
        print("\n".join(_fish()))
        return
    cases = []
    for behind, words in _completed().items():
        pattern = f'"{behind}"' if " " in behind else f'"{behind} "*'  # behind a command anything may follow
        cases.append(f'        {pattern}) found="{" ".join(words)}" ;;')
    template = BASH if options.shell == "bash" else ZSH
    print(template.format(cases="\n".join(cases), first=" ".join([*COMMANDS, "--help", "--version"])), end="")


def _completed() -> dict[str, list[str]]:
    """What may follow: behind "train RECIPE" its options, behind "train" its own and the recipes; the longer first."""
    recipes = {name: re.findall(r"(?<![\w-])--[a-z][\w-]*", find_recipe(name).usage()) for name in installed()}
    first = {"demo": [*offers(DEMOS)], "data": [*offers(DATA)], "completion": [*SHELLS]}
    found: dict[str, list[str]] = {}
    for name, command in COMMANDS.items():
        parser = parser_of(name)
        if command.passes == "recipe":
            first[name] = [*recipes]
            found |= {f"{name} {recipe}": sorted({*options, *parser.behind}) for recipe, options in recipes.items()}
        found[name] = [*first.get(name, []), *(word for word in parser.spellings() if word.startswith("--"))]
    return found


def _fish() -> Iterator[str]:
    for name, command in COMMANDS.items():
        yield f"complete -c unbroken -n __fish_use_subcommand -f -a {name} -d {quote(command.summary)}"
    for behind, words in _completed().items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in behind.split())
        for word in words:
            offered = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
            yield f"complete -c unbroken -n {quote(seen)} {offered}"
