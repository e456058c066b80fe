"""The broker: it gives movers of shared stores what their operation needs, and nothing else.

It alone has the credentials and the encryption keys of shared stores. It stores nothing: `cinderblock.lifecycle.grant`
decides what a mover may do, from objects that it reads again at least once a minute.
"""
