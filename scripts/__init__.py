"""Commands by the names that users of the study know; each a few lines over psa."""
