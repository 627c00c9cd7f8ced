"""The sections of a recipe, each with its checks; `core.recipe` puts them together."""
