"""Cohorts: manifests checked, images taken in, exclusions with their reasons."""
