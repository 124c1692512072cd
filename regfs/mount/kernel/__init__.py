"""The driver on /dev/fuse: regfs's own session with the kernel, without libfuse."""
