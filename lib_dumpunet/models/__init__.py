"""Describe a live model: its blocks, and the ports where their values are read and changed.

One adapter per layout (`unet_ldm.py`, `unet_diffusers.py`) says where a block's values are; hooks and everything after
them use only ports.
"""
