"""From a reference to an RGB picture: fetching within limits, decoding within limits. Knows no jobs."""
