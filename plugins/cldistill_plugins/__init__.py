"""The built-in plugins of cldistill: the method, its base model, its teachers."""
