"""Answers of registries, and how long each is valid.

remembered      an answer in memory: its lifetime, and the refresh that ends all lifetimes
tags            the tags of a repository, and what each points to; when a tag is asked again
past_tags       what a tag pointed to at a time
manifests       manifests and indexes by digest
short_digests   `@440129be81b2` for a whole digest
blobs           layers and configs, from the cache or the registry
existence       which names are repositories or namespaces
catalog_below   what a registry's catalog says of that
"""
