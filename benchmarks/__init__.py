"""How fast tcprism is and what it costs, against targets and against its peers: `make bench`."""
