"""What each command does: a file a command, named like it; `unbroken.cli.tree` lists them."""
