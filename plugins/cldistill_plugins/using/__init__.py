"""Commands on finished files: look at an adapter or collection, and edit pictures with one."""
