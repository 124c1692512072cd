"""regfs shows OCI and Docker registries as directories."""
