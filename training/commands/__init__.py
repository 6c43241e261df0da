"""The commands of `python -m training`, one a module, and what they share."""
