"""Who the caller is, as the API server knows them."""

from __future__ import annotations
