"""Choices that are made once, on development data, and applied unchanged: temperature and cut-offs.

Both sides use them: learning to make and to apply them, statistics and reports to read them.
"""
