"""The explorer page: everything captured of an image in one HTML file, which opens from disk and needs no network."""
