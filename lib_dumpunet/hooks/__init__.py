"""Forward hooks, which exist only inside a ``with``; no other package touches modules."""
