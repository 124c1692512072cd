"""Locks between the processes that share a cache.

file_locks        on a file that is being written, and on the cache while it changes
work_locks        by name: work that one process does while the others wait
"""
