"""Values of the field: digests, names, manifests, platforms, attributes. Parse and print; no I/O."""
