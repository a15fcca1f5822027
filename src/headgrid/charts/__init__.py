"""Tables -> altair charts, facetted by head."""
