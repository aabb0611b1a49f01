"""Whom limits take for one is the same here as for the daemon."""

from signer.network import network

__all__ = ["network"]
