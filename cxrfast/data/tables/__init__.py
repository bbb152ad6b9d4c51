"""Tables of text: their values, their boxes, and the image files that they name."""
