"""Figures and the HTML page of a run: the only package that draws (matplotlib) and fills templates (jinja2)."""
