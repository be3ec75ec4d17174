"""Labelled grids of pictures: drawn while a run trains, and for whoever else shows pictures side by side."""
