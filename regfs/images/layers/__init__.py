"""The layers of images, and what they are merged into.

layer_cache       the layers and merged images of a cache: opened, fetched, repaired
layer_indexes     the names of layers: opened once, ingested where they are not here
layer_ingests     a layer is fetched, verified and indexed
partial_layers    a layer with a table of contents, whose bytes are fetched when they are read
merges            the layers of an image become one table
"""
