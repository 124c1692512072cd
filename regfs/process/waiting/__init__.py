"""How threads wait: under a deadline, for work that is done once, or for room.

deadline     how long the current thread may wait; interruption; NON_BLOCKING
single_flight  each thing is computed once, however many threads ask for it
semaphore    so many requests at a time; byte_room: so many bytes
"""
