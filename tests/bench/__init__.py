"""`make bench`: fixed workloads, regfs beside what one would use instead, in one run on one machine.

Cold means: an empty cache, a fresh mount, and page caches dropped. Times are wall clock, of whole processes where a
user would wait for a process. `python -m tests.bench --help` lists the workloads.
"""
