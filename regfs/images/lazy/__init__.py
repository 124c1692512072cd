"""Lazy layers: a layer with a table of contents is fetched chunk by chunk, as its files are read.

toc_ingest        the names of such a layer
chunk_fetching    which chunks are fetched, and when
chunk_requests    the requests for them
chunk_ranges      which ranges of the blob bring given chunks
chunk_read_ahead  how far ahead of a reader
chunk_source      what a layer is fetched from
soci_spans        the spans of a SOCI layer, and the check of its headers
toc_comparison    the table and the archive are compared when the whole layer is read
background_fetch  the rest of layers that are in use
foreground        which reads wait now
"""
