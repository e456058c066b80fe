"""HTTP servers: limits on connections and requests, renewal of certificates, stop by a signal, health and metrics.

The gateway and the broker share them. This room knows neither what is served nor who asks.
"""
