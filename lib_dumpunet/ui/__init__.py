"""The panel, in Gradio: one code for the webui's page and for one of its own; it knows no host."""
