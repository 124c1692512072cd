"""The merged images of the cache.

merged_table      the table of all files of an image
image_numbers     the numbers of images and layers in st_ino
"""
