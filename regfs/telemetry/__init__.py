"""Counters, recent failures, and the last requests to registries.

- stats.py: counters and gauges
- metrics.py: the same, for Prometheus
- journal.py: recent failures, for `.regfs/errors`
- request_log.py: the last requests, for `.regfs/requests`
"""
