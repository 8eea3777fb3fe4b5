"""The kernel side: libbpf through ctypes; nothing else touches it."""
