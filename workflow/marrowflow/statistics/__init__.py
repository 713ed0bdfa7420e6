"""Diagnostic accuracy of any prediction table, with intervals clustered by patient. No pixels here."""
