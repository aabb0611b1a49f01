"""What one would use instead. Nothing here imports anything of the product."""
