"""How well models forecast public series, by the protocols that others were measured by: `make bench-accuracy`."""
