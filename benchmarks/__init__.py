"""Measurements of the running service, on the machine at hand: `make bench`."""
