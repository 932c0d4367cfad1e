"""The studio: a local web page with the same panel as the webui extension, without the webui."""
