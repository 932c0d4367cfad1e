"""The host in AUTOMATIC1111's stable-diffusion-webui: the same work for its dropdown, its other scripts and its API."""
