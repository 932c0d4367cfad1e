"""The explorer: all that was captured of an image as one HTML file, which opens from disk and needs no network."""
