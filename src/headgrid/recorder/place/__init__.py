"""Tokens of a call -> the frames that they belong to."""
