"""Ingests, opens and merges the layers of images.

layer_cache       opens, fetches and repairs the layers and merged images of a cache
layer_indexes     the indexes of layers: opened once, ingested if the cache lacks them
layer_ingests     fetches, verifies and indexes a layer
partial_layers    layers with a table of contents, whose bytes are fetched when they are read
merges            merges the layers of an image into one table
"""
