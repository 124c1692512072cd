"""Images as one file: an OCI image layout as a tar archive, for machines that reach no registry.

    oci-layout                {"imageLayoutVersion":"1.0.0"}
    index.json                what is in it, by name (names.py)
    blobs/<algorithm>/<hex>   manifests, configs, layers, and what refers to the images

Written by writing.py, read by reading.py; skopeo, podman, containerd and `docker load` read and write the same form.
Sources: image-spec, image-layout.md; containerd, docs/images.md (io.containerd.image.name).
"""
