"""`pointsman drill`: outages by script, with real processes and real traffic, and a table of what they did."""
