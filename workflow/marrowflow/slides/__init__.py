"""Whole slides: from a scanner's file to tiles, features and bags, and networks that learn from a slide's label alone."""
