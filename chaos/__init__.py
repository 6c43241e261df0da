"""Faults on purpose: what becomes of the service and its clients when files, processes, clients and bytes go wrong."""
