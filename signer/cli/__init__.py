"""The commands of `paraph`, a file each."""
