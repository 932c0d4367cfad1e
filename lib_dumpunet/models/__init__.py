"""What a model consists of, read off the live module: its blocks, and the ports where they are read and changed.

One adapter for each layout (`unet_ldm.py`, `unet_diffusers.py`) says where a block's values are; hooks and all that
follows know ports alone.
"""
