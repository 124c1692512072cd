"""An image in another form.

- unpack.py: its merged files in a directory
"""
