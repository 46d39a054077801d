"""Folders and files: written whole or not at all, found by name, checked before work."""
