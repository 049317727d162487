"""What `jaxgmm.compare` finds: checks in three tiers, a table, basins, the conclusion in words."""
