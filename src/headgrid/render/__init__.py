"""Specification -> bytes of SVG, PNG, PDF and JSON."""
