"""SQLite files of the cache.

table             an immutable one: opened at its first query, closed when others need its place
open_tables       what the process has open, in one bound
shared_database   small ones that the mounts of a cache share
"""
