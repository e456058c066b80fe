"""The mover's side of the broker: it signs requests, gives session credentials, and opens data keys.

api/broker.py has the requests and answers.
"""
