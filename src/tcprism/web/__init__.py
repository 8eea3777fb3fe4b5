"""The page: a store that batches fill, its answers as JSON, and the server that gives them out."""
