"""Object stores.

store: a small Protocol over one container. wrapper: a store around a store that adds one concern. key: the name of an
object in the container, a non-empty string of printable ASCII whose parts are divided by slashes.
"""
