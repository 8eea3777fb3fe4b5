"""What `tcprism demo` traces: a small lossy network, and processes that talk in it."""
