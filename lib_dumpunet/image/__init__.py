"""Draw feature maps as pictures: transform, colour, average, lay out, encode; tensors in, pictures out."""
