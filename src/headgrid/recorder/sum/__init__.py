"""Calls with their frames -> sums over frame pairs, a matrix a layer."""
