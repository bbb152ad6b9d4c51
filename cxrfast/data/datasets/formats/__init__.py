"""Readers for general formats: manifest, COCO, YOLO, PASCAL VOC, folders of classes."""
