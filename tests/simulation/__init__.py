"""Deterministic simulation of pool, scheduler and gate: README.md."""
