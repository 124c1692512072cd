"""Files of the cache: opening, reading, hashing, removing, and what their errors mean.

cached_files      opening, reading, hashing and removing them, whatever else has their name
checksums         the sums of an index or a merged table
directories       the directories of a cache
failures          errors of the disk and of SQLite, with path and remedy
uncached_writes   writing past the page cache
boot              this boot of the machine
"""
