"""Whether `prove` finds what is wrong with a training, and passes what is right."""
