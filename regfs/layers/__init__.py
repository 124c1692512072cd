"""Files inside one layer: from a blob's bytes to rows of an index and a data file.

In reading order:

    ingest          a plain layer: received, inflated, hashed, read as an archive and written
    archive_stream  its tar stream, in the blocks of a ring (ring); compression, gzip, zstd inflate it
    plain_entries   the entries that nearly all are, in one loop; tar, tar_header, pax, tar_sparse read all others
    archive_rows    what the entries leave behind, in tar order, as rows (entry_row, paths)
    sink            where rows and bytes go: the seam to store/layer_writer.py
    formats/        layers that bring a table of contents: eStargz, zstd:chunked, SOCI
    table_rows      the rows of such a table
    source          where the bytes of such a layer come from, range by range
    checkpoints     where inflating a gzip layer can begin, for SOCI
    feed            a stream of blocks, taken in pieces of any size
"""
