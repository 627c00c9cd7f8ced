"""The frozen types of the one straight line, their ids, the errors and the recipe.

Nothing in here imports anything else of the package.
"""
