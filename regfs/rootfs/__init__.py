"""The layers of an image as one tree of files. Pure but for SQLite.

file_tree            what every tree of files answers
rootfs               the tree of an image, from its merged table     directory_cache: directories in memory
layer_tree           the tree of one layer alone
wasted               what upper layers hide of lower ones
differences          what differs between two trees                  origins: which layer made it so
merge                layers become a merged table
apply                what each entry of a layer does; a worked example
layer_directories    which directory an entry goes into
fresh_entries        entries that SQLite copies many at once
working_tree         the tree so far
"""
