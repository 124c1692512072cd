"""The tar format.

tar_reader        entries of a stream: every dialect that images are made of
tar_header        one header block
tar_sparse        sparse files
pax               extended headers
paths             the paths of entries
feed              the stream of blocks that they are read from
"""
