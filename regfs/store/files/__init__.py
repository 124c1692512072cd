"""Files of the cache: opening, reading, hashing, removing, and what their errors mean.

cached_files      opens, reads, hashes and removes them, and clears away what else has their name
replaced_files    writes small files in one step
checksummed_files small files that carry their own sum
checksums         the sums of an index or a merged table
directories       the directories of a cache
failures          errors of the disk and of SQLite, with path and remedy
uncached_writes   writing past the page cache
boot_id           this boot of the machine
"""
