"""Geometries and what models make of them; neighbours, bonds, superposition. Nothing here knows of files or models."""
