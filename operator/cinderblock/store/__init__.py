"""Where objects live.

store: a small Protocol over one container. wrapper: a store around a store that adds one concern. key: name of an
object in the container, a non-empty string of printable ASCII, parts divided by slashes.
"""
