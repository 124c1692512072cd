"""Lazy layers: a layer with a table of contents is fetched chunk by chunk, as its files are read.

toc_ingest        makes the index of such a layer from its table
chunk_fetching    decides which chunks are fetched, and when
chunk_requests    the requests for them
chunk_arrivals    lets readers wait for single chunks of a request
chunk_ranges      finds the ranges of the blob that hold given chunks
chunk_read_ahead  decides how far ahead of a reader chunks are fetched
directory_reads   decides which files come along because of their directory
cache_room        bounds what is fetched beyond what is read
chunk_source      the interfaces of a layer's chunk table and bytes
soci_spans        inflates the spans of a SOCI layer, and checks its headers
toc_comparison    compares table and archive when the whole layer is read
background_fetch  fetches the rest of layers in use
plain_spans       unpacks spans of a plain layer; sparse_reads: a sparse file from these
archive_stream_reads  cuts spans out of a layer that can be decompressed from its start alone
foreground        counts the waiting reads, and bounds the memory of requests
"""
