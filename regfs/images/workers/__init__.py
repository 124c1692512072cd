"""Worker processes: the ingest of big layers and the merge of big images."""
