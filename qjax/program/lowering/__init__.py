"""From an integer network's own program to one that a file format and its runtime can hold."""
