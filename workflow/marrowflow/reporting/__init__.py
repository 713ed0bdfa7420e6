"""Figures, tables and self-contained pages, made from inventories and prediction tables."""
