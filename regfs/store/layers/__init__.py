"""The layers of the cache: their indexes, data files, and the chunks of lazy ones.

layer_store       opens, publishes and drops layers; lists the files
layer_index       the index of one layer; layer_index_writer writes it
layer_writer      index and data file of a layer that is being ingested
ingest_directories  where ingests write until their layer is right
layer_files       which files of a layer are here; layer_names: what they are called
data_files        data files that are read from
data_writer       writing one: the tar stream, and what sparse files expand to
chunks            chunks of a lazy layer, kept in its data file; unkept_chunks: those that cannot be written
refetched_data    what was fetched again of a plain layer; span_table, sparse_map: where that comes from
chunk_map         which of them are here
chunk_eviction    evicts some of a layer that is in use
content           where the bytes of a file are; reads them
diff_ids          the diff ids of blobs that no config names one for
promotion         copies of big files, for passthrough
open_retry        opening a file where descriptors run out
unsettled_layers  layers that may not be on the disk yet
wrong_layers      checks a layer for damage
"""
