"""The version of unbroken: written here alone, and read by the package, its command line and the build."""

__version__ = "0.1.0"  # version of the package, as `pip` has it
