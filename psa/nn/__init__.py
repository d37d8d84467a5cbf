"""The networks: shapes (pure, no torch), stacked layers, and the families built from them."""
