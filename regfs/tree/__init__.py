"""What the mount looks like: directories, files and links by node id. No FUSE, no HTTP. In reading order:

tree.py            what drivers ask, and which half answers: an invented node or a table's entry
entry.py           what a look-up and a listing answer
invented.py        the invented nodes that the kernel knows, by id
table_slots.py     the tables that the kernel knows: rootfs/ and layers/N/tree/; loads them
node.py            the kinds of nodes: directory, file, link, directory of a table
root.py            `/`: registries, and the names of the default registry
namespace.py       registry, namespace, repository: when a name means a tag, and when a repository
tag.py             the directory of a tag, and manifests by digest
image.py           the directory of an image: the table of its parts
layers.py          layers/: the table of a layer's parts
blobs.py           blobs/
views/             files/ of an artifact, oci/, referrers/, .diff/; files that are worked out when they are read
unlisted_xattrs.py attributes that tell which layer brought a path
platform_notes.py  the notes about a platform that is missing or another
parts.py           what image.py and layers.py write their tables with
control.py         .regfs/
listings.py        open directories, read in parts
tags_in_use.py    what happens to a process inside a tag that moves
probed_names.py    names that shells and editors try, for which no registry is asked
inode_numbers.py   where st_ino comes from
usage.py           what df shows
one_image.py       one image as the root of a mount
snapshot.py        what the kernel was told, for another process
"""
