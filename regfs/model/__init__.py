"""The values that regfs works with, parsed from bytes and text, and rendered to them. No I/O. In reading order:

digest.py          sha256:…
verification.py    checks bytes against their digest while they pass
hash_thread.py     hashes in a second thread during a transfer
names.py           registries, repositories, tags, references: what Docker's grammar allows
media_types.py     which documents and layers OCI and Docker have
strict_json.py     JSON documents, refused if two programs could read them differently
manifest.py        manifests, indexes, descriptors
image_config.py    the config of an image
run_config.py      how an image is run: program, environment, user
render.py          writes manifests and indexes
artifacts/         the file names of an artifact
attestations/      signatures, attestations and SBOMs: kinds, decoding
oci_layout.py      an image as a directory that other tools read
packages.py        databases of dpkg and apk, headers of rpm
elf.py             loader and libraries of a program; ld_so_cache.py: where glibc finds these
start_record.py    what the start of an image read
signature_policy.py, notation_policy.py   which images may be shown
platform.py        linux/arm64/v8: what runs where, and which entry of an index is chosen
dates.py           RFC 3339, and times in names
cache_limits.py    the limits of a cache: size, free space, age
units.py           sizes for people
userinfo.py        hides passwords in messages
attributes.py      struct fuse_attr
layer_entry.py     one row of a layer's index
whiteout.py        which names in a layer are whiteouts
node_id.py         the 64 bits of a node id
path_walk.py       walks a path component by component; path_text.py: paths in messages
"""
