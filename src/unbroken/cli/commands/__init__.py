"""What each command does: a file a command, named like it; `unbroken.cli.tree` lists them.

In a file NAME, `NAME_options(parser)` declares what may be typed behind the command, and `NAME_command(options)` does
it and returns the exit code. *Lines* are what a person reads; with `--json` the same facts are one object. What is
found out is found out elsewhere (`report`, `keep`, `launch`, `prove`): a command asks, words and prints, and a file is
imported only when its command was typed.

Touches terminal, environment (where listings are cached), files (a page or a plot where one was asked for) and
processes (`stop` sends a signal).
"""
