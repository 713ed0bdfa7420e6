"""Choices that are made once, on development data, and applied unchanged: temperatures, cut-offs, what is reported first.

Both sides use them: learning to make and to apply them, statistics and reports to read them.
"""
