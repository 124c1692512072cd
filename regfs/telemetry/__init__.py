"""What was counted, what failed, and text for people.

- stats.py: counters and gauges
- journal.py: recent failures, for `.regfs/errors`
- request_log.py: the last requests, for `.regfs/requests`
- userinfo.py: hides passwords in messages
- units.py: sizes for people
"""
