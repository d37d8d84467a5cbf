"""The report of the activation studies, and of experiments from Python."""
