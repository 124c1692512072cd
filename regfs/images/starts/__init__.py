"""What an image's start reads, fetched before it is asked for.

program_files.py   which files a program is made of: interpreter, libraries, what its scripts name
records.py         what a start has read, recorded: kept, pushed, found again
start_prefetch.py  when which of it is fetched
"""
