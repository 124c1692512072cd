"""The two drivers: the only code that knows FUSE."""
