"""Arms with further settings than their mode: their tables, their figure and their page."""
