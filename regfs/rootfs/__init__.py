"""The layers of an image as one tree of files. Pure but for SQLite.

file_tree            the interface of every tree of files
rootfs               the tree of an image
directories          its directories: shared ones from the merged table, unshared ones from the index of their layer
directory_cache      directories in memory
layer_tree           the tree of one layer alone
wasted               files of lower layers that upper layers hide
versions             what each layer has at one path
paths                what a path names in a tree, and the files below it
part_of_tree         a directory of a tree, or one entry, as a tree of its own
differences          what differs between two trees
origins              which layer made them differ
trees_of_differences what differs, as trees: added, removed, changed
merge                layers become a merged table
apply                writes the entries of one layer into the working tree; has a worked example
attached_layer       which of the layer's entries are visited, copied, or left to its index
layer_directories    which directory an entry goes into
fresh_entries        entries that SQLite copies many at once
working_tree         the merged tree of the layers applied so far
unshared_directories  directories that one layer alone has
finished_tree        what the layers share is written into the merged table
"""
