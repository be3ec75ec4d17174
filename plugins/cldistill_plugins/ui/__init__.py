"""A page in the browser that edits pictures with a collection."""
