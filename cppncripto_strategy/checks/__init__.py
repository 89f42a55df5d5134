"""The leak checks of a recipe: does anything in this pipeline know the future?"""
