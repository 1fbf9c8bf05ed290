"""The fault drill: the distributed form under load while processes, engines, networks and clocks fail."""
