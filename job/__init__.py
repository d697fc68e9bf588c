"""Batch segmentation on Ray Data."""
