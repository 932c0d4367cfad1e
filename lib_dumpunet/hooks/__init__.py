"""The only package that touches modules: hooks that read and are gone when their ``with`` ends."""
