"""marrowflow: reproducible diagnostic-accuracy studies on marrow and blood smears."""

__version__ = "0.1.0"
