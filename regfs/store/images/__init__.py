"""The merged images of the cache.

merged_table      the table of all files of an image
verdicts          what comparisons of two images found
tables_of_differences  the tables of .diff/: what was added, removed, changed
image_numbers     the numbers of images and layers in st_ino
"""
