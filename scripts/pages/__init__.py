"""Manual pages and completions for shells, made from the declarations of the commands: `python -m scripts.pages`."""
