"""Repositories and images: where registry, store, layers and rootfs meet, and each thing is computed once."""
