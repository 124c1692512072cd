"""The driver on libfuse 2 by fusepy, for machines on which the kernel driver cannot run."""

LIBRARY = "libfuse.so.2"
"""The library that fusepy loads when it is imported; FUSE_LIBRARY_PATH in the environment names another."""
