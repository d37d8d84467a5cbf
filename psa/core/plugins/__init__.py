"""Plugins: modes, probes, networks, studies, reports, trackers and backends from outside of psa.

A plugin is a Python file, or a module of an installed package, with a function `register()` that calls
functions such as `psa.register_mode`. docs/extending.md has an example of each.
"""
