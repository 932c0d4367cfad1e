"""Texts that choose blocks and steps or give prompts per block; strings in, plain values out."""
