"""The part of Keystone's Identity API that OpenStack clients need to log in."""
