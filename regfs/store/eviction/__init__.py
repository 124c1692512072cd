"""How much the cache may hold, what is evicted when it is full, and what stays because it is in use.

budget            the limit, and room for what is to be written
eviction          what is evicted, and in which order
excess            what is kept beyond the limit while it is in use
inventory         the files of the cache by kind, with their sizes
uses              what each process uses
pins              what the user wants to keep
kernel_mounts     what the kernel has mounted by itself
"""
