"""The HTTP side of the service: one module a protocol or concern."""
