"""Vega's SVG -> small, seamless, deterministic SVG with live text."""
