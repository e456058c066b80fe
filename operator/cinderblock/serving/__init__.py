"""HTTP servers: connections and requests within limits, TLS that is renewed, stop by a signal, health and metrics.

The gateway and the broker share them. This room knows neither what is served nor who asks.
"""
