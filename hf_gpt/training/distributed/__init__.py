"""Several processes: launching, sharding."""
