"""The driver on libfuse 2 by fusepy, for machines on which the kernel driver cannot run."""
