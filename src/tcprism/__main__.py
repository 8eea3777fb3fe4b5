"""`python -m tcprism`."""

from tcprism.cli import main

main()
