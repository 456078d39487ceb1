"""Rasters that a map is made of: one module a kind, behind one Protocol."""
