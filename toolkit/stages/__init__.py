"""One module a verb of the pipeline: observe, act on the difference, observe again. Stages do not know each other."""
