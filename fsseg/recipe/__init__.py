"""An experiment as data: recipes are read and checked here, without torch, and nothing is run."""
