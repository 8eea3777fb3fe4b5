"""The kernel side: libbpf by ctypes, nothing else touches it."""
