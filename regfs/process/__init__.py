"""This process.

- user.py: its user: home, configuration, root or not
- umask.py: the permissions that new files lack
- descriptors.py: the limit of open files
- subordinate_ids.py: the users and groups that it may be in a user namespace, by /etc/subuid
- syscalls.py: calls that Python has no names for
- threads.py: starting threads and processes where the system may refuse
"""
