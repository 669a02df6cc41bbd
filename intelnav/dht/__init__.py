"""How nodes find each other: records, lookups and datagrams; no I/O, no clock, no randomness of its own."""
