"""Phantoms: drawn radiographs with lesions and boxes, in the layout of ChestX-ray14."""
