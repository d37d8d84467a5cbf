"""Everything on disk: trial states, records, arrays and locks, atomic and checked by digest."""
