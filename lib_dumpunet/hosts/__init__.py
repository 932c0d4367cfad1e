"""The hosts: programs that the core runs in. Each package here is a thin adapter to one of them."""
