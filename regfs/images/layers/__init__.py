"""Ingests, opens and merges the layers of images.

layer_cache       opens, fetches and repairs the layers and merged images of a cache
layer_indexes     the indexes of layers: opened once, ingested if the cache lacks them
layer_ingests     fetches, verifies and indexes a layer
partial_layers    layers with a table of contents, whose bytes are fetched when they are read
layer_contents    opens and fetches the bytes of files, whichever way their layer has them
plain_parts       plain layers without a data file, read by ranges of their blobs
unkept_blobs      whole blobs that the cache cannot take, read in verified pieces
temporary_cache   a temporary cache for the names of images for which there is no room
merges            merges the layers of an image into one table
"""
