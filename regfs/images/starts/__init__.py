"""Records what the start of an image reads, and fetches it ahead.

program_files.py   finds the files that a program loads: interpreter, loader, libraries
records.py         stores records of starts in the cache and beside the image, and finds them
start_prefetch.py  decides what is fetched ahead, and when
trace.py           records the reads of one start
"""
