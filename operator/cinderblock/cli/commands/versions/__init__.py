"""Commands about earlier versions of objects."""
