"""The commands that `pip install` brings. Nothing of the package imports them."""
