"""The standalone host: any SD 1.x, 2.x or SDXL pipeline of Hugging Face diffusers."""
