"""Waiting: deadlines, single flights, semaphores."""
