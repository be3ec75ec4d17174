"""General instructions for unlabelled pictures: the command ``instructions`` and its makers."""
