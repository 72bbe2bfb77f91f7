"""Components by kind and name: nothing here knows what a component does, and listing them imports none."""
