"""What `jaxgmm.select` finds: models on the same data by their criteria, and merged components."""
