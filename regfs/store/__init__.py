"""Local copies: what a cache directory holds. layer_store.py lists its directories and files.

blobs                  manifests, configs and layers as they were sent, by digest
layer_store            layers: their indexes and data files
layer_index            what an index holds, row by row             table: how an immutable SQLite file is read
merged_index           the merged table of an image
layer_writer           what an ingest writes                       layer_index_writer, data_writer, uncached_writes
content                the bytes of one file                       data_files, chunks, promotion
references             what tags pointed to                        reference_database, known_repositories,
                                                                   named_digests
image_numbers          the upper bits of st_ino
budget                 how much a cache may hold                   inventory, eviction, excess
uses, locks            what other processes use and write          work_locks, ingest_directories
open_tables            what this process has open                  open_retry
unsettled_layers, verify          what a crash may have torn; what is damaged checksums
directories, failures  what stands in the place of a directory; errors of the disk
"""
