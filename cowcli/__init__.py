"""What the commands share in how they speak to people: progress, errors. Uses typer and rich; `cowlib` does not."""
