"""The life of a mount: start, log, signals, end.

- launch.py: goes to the background, and reports to the parent how the start went
- serve.py: mounts, waits for signals, ends
- session.py: builds the app and a session of the driver
- all_modules.py: what a mount may need later, loaded before an upgrade can replace it
- process_settings.py: what a daemon sets for its whole process
- logs.py: where the log goes
- registry_reachability.py: whether the default registry takes a connection
- self_description.py: `.regfs/daemon.json`
"""
