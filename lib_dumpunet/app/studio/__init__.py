"""The studio: a page of its own for people without the webui, with the very panel of the extension."""
