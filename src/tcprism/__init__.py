"""tcprism shows what every TCP connection on a Linux machine is doing, from inside the kernel."""

__version__ = "0.1.0"
