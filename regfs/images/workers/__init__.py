"""Worker processes, which ingest big layers and merge big images. Used by images/layers/."""
