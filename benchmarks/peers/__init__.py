"""Other people's tools, on our work. Each is used as its own documentation shows it."""
