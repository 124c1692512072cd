"""What references pointed to when a registry was last asked.

references        the digests of tags, the tags of repositories
known_repositories  which repositories there are
tag_history       what tags pointed to in the past
named_digests     all that is remembered, for `regfs cache`
reference_database  the SQLite file
"""
