"""Commands under the names that users of the original study know; each is a few lines on top of psa."""
