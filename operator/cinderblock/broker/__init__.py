"""The broker: it gives movers of shared stores what their operation needs, and nothing else.

Besides the operator, only the broker reads the credentials and the encryption keys of shared stores. It stores nothing:
`cinderblock.lifecycle.grant` decides what a mover may do, from objects that the broker reads again at least once a
minute.
"""
