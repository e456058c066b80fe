"""Signers of requests that do not have the credentials of the store."""
