"""The cache directory. eviction/inventory.py and layers/layer_store.py list its directories and files.

blobs           manifests, configs and layers as they were sent, by digest
layers/         layers: their indexes, their data files, and which chunks of these were fetched
images/         merged tables of images; what comparisons found; the numbers of images and layers in st_ino
references/     what tags pointed to, and which repositories are known
eviction/       how much the cache may hold, what is evicted, and what stays because it is in use
tables/         SQLite files, and what the process has open
locks/          between the processes that share a cache
files/          opening, reading, hashing and removing files; errors of the disk
verify          what is damaged
scrub           the same in the background, each file once in a while
"""
