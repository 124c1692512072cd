"""What the mount looks like: directories, files and links by node id. No FUSE, no HTTP. In reading order:

tree.py            the file system of the drivers: each call goes to an invented node or to a table
entry.py           the results of a look-up and of a listing
invented.py        the invented nodes that the kernel knows, by id
table_slots.py     the tables that the kernel knows: rootfs/ and layers/N/tree/; loads them
node.py            the kinds of nodes: directory, file, link, directory of a table
root.py            `/`: registries, and the names of the default registry
namespace.py       registry, namespace, repository: when a name means a tag, and when a repository
tag.py             the directory of a tag, and manifests by digest
image.py           the directory of an image: the table of its parts
layers.py          layers/: the table of a layer's parts
blobs.py           blobs/
views/             files/ of an artifact, oci/, referrers/, .diff/; files that are computed when they are read
unlisted_xattrs.py attributes that name the layer of a path
platform_notes.py  the notes about a missing or different platform
directory_parts.py rows that list the parts of a directory, for image.py and layers.py
control.py         .regfs/
cached_parts.py    .regfs/cache/: the parts of the cache, and what keeps each
tag_history.py     .regfs/history/: what tags pointed to
listings.py        open directories, read in parts
tags_in_use.py     a tag keeps its image while processes are in it
probed_names.py    names that programs try in every directory, for which no registry is asked
inode_numbers.py   computes st_ino
usage.py           statfs(2), for df
one_image.py       one image as the root of a mount
owner.py           the tree with other owners of its files
taken_over_nodes.py   nodes from another process, not located yet
snapshot.py        the kernel's node ids and slots, for a hand-over to another process
"""
