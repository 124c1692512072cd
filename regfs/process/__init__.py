"""This process.

- user.py: its user: home, configuration, root or not
- umask.py: the permissions that new files lack
- descriptors.py: the limit of open files
- threads.py: starting threads and processes where the system may refuse
"""
