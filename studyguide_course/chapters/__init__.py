"""Short optional chapters of the lessons: measurements and models that one section needs."""
