"""How long calls take: warmed up, in rounds, as percentiles with intervals."""
