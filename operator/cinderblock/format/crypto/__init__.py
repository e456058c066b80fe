"""Keys, and how frames are encrypted and bound to their place."""
