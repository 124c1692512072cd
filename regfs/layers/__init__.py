"""The content of one layer: from a blob's bytes to rows of an index and a data file.

In reading order:

    ingest          a plain layer: received, inflated, hashed, read as an archive and written
    compression/    the blob is decompressed into the blocks of a ring buffer (ring_buffer)
    tar/            entries are read from that stream
    rows/           entries become rows of the index; rows/sink: the interface to the store
    formats/        layers that have a table of contents: eStargz, zstd:chunked, SOCI
    source          where the bytes of such a layer come from, range by range
"""
