"""Values of the field, parsed from bytes and text; only names and digests are written again. No I/O. In reading order:

digest.py          sha256:…
verification.py    bytes that are checked against their digest while they pass
hash_thread.py     hashing beside a transfer
names.py           registries, repositories, tags, references: what Docker's grammar allows
media_types.py     which documents and layers OCI and Docker have
strict_json.py     JSON that every program reads alike, or none
manifest.py        manifests, indexes, descriptors
image_config.py    the config of an image
artifacts/         what the files of an artifact are called
oci_layout.py      an image as a directory that other tools read
packages.py        databases of dpkg and apk
platform.py        linux/arm64/v8: what runs where, and which entry of an index is chosen
dates.py           RFC 3339
units.py           sizes for people
userinfo.py        hides passwords in messages
attributes.py      struct fuse_attr
layer_entry.py     one row of a layer's index
whiteout.py        which names hide others
node_id.py         the 64 bits of a node id
"""
