"""What was counted, what failed, and text for people.

- stats.py: counters and gauges
- journal.py: recent failures, for `.regfs/errors`
- userinfo.py: hides passwords in messages
- units.py: sizes for people
"""
