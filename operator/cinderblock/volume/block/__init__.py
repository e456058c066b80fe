"""A block device, or a regular file that holds the image of one."""
