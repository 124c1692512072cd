"""What layers are compressed with.

detection         which compression a layer has
archive_stream    the tar stream of a layer, inflated
gzip, zstd        the two formats
checkpoints       where inflating a gzip layer can begin
"""
