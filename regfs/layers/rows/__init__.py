"""The rows of a layer's index: from entries of an archive or of a table of contents.

archive_rows      applies the entries of an archive
plain_entries     entries that nearly all are, in one loop
table_rows        entries of a table of contents
entry_row         one entry as a row
sink              where rows and bytes go
"""
