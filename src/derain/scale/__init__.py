"""The main job over many machines, by Ray Data."""
