"""Load records into data frames and compute statistics over seeds; pure functions."""
