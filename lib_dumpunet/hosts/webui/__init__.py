"""The host in AUTOMATIC1111's stable-diffusion-webui, for its Script dropdown, its other scripts and its API."""
