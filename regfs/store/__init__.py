"""Local copies: what a cache directory holds. layers/layer_store.py lists its directories and files.

blobs           manifests, configs and layers as they were sent, by digest
layers/         layers: their indexes, their data files, the chunks of these that are here
images/         merged tables of images; what comparisons found; the numbers of images and layers in st_ino
references/     what tags pointed to, and which repositories there are
eviction/       how much the cache may hold, what goes, and what stays because it is in use
tables/         SQLite files, and what the process has open
locks/          between the processes that share a cache
files/          opening, reading, hashing and removing files; errors of the disk
verify          what is damaged
scrub           the same in the background, each file once in a while
"""
