"""What a run says of itself: before it, what will run and why; while it runs, how far it is and what failed.

Imports the standard library only: with ``--use-conda`` nothing else need be in the calling environment.
"""
