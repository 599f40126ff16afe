"""The rack as designed, the states of its nodes and the plan. Pure but for reading YAML; nothing here talks."""
