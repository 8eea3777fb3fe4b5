"""What `tcprism demo` traces: a small lossy network of our own, and processes that talk in it."""
