"""TLS libraries: which files have them, who uses them, where their functions are."""
