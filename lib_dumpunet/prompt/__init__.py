"""Parse prompts, and texts that choose blocks and steps; strings in, plain values out."""
