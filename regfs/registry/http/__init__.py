"""Requests and answers: connections, retries, redirects, limits. Knows no registry API."""
