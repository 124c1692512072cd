"""Decompression of layers.

detection         which compression a layer has
archive_stream    the tar stream of a layer, decompressed
gzip, zstd        the two formats
checkpoints       where inflating a gzip layer can begin
"""
