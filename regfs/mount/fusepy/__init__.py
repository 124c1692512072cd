"""The driver on libfuse 2, by the fusepy library. In reading order:

session            one mount, from its start to its end
libfuse            fusepy and the library that it loads
adapter            the callbacks: libfuse's structures -> operations
operations         fusepy's operations -> tree
paths              libfuse's paths -> nodes of the tree, remembered while they are valid
stat_fields        attributes as the C structure that libfuse wants
serving_threads    the threads that receive requests and answer them
request_deadline   the deadline of the request that a thread answers
hang_watch         finds threads that the cache's disk holds up
own_threads        runs callbacks in threads of their own while the disk hangs
private_arguments  copies of libfuse's structures for these threads
"""

LIBRARY = "libfuse.so.2"
"""The library that fusepy loads when it is imported; FUSE_LIBRARY_PATH in the environment names another."""
