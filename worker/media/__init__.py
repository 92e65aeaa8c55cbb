"""From a reference to tiles: fetching within limits, decoding within limits, in other processes. Knows no jobs."""
