"""Trains every method: turns a recipe into weights."""

from derain.training.loop import train
from derain.training.recipe import Recipe, load_recipe, published_recipes
from derain.training.signals import Stopped

__all__ = ["Recipe", "Stopped", "load_recipe", "published_recipes", "train"]
