"""TinyMyo in integers only: its graph, what its numbers become, and the exact arithmetic that results."""
