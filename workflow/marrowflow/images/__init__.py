"""Pixels: colour correction, the packed store, the augmentation plan. Nothing here imports torch."""
