"""The panel, in Gradio, shared by the webui and the studio; it knows no host."""
