"""Training of every method: a recipe in, weights out."""

from derain.training.loop import train
from derain.training.recipe import Recipe, load_recipe, published_recipes
from derain.training.signals import Stopped

__all__ = ["Recipe", "Stopped", "load_recipe", "published_recipes", "train"]
