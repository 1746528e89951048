"""From images to ranges, and from ranges to a Q/DQ graph."""
