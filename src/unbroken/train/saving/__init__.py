"""Writing checkpoints: when one is due, whether there is room, what is done when it fails, and what follows one."""
