"""Growing a collection: rehearsal of the old effects, taught by the frozen collection itself, beside the new ones."""
