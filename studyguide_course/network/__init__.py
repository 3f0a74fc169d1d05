"""A network in the box: a live run's controls, links that are slow or cut, and a failover."""
