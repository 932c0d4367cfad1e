"""What a U-Net consists of, read off the live module: blocks, the modules to hook, shapes and heads."""
