"""How much the cache may hold, what is evicted when it is full, and what stays because it is in use.

budget            the limit, and room for what is to be written
eviction          what is evicted, and in which order
shrinking         what is kept beyond the limit while it is in use
inventory         the files of the cache by kind, with their sizes
in_use            what each process uses: it is never evicted
pins              what the user wants to keep
kernel_mounts     what the kernel has mounted by itself
"""
