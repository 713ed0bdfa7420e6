"""Cells on smears: where they lie and of what type they are."""
