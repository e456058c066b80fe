"""A front like Keystone, as far as clients need it to log in."""
