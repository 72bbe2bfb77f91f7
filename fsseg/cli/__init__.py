"""The shell: commands that read options, call the packages below and print; the only package with typer and rich."""
