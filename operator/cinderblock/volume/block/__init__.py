"""Volumes of mode Block: a block device, or a regular file that contains the image of one."""
