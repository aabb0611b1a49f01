"""
How fast it is, asked one question per file: `python -m bench --help`.

README.md says what each question asks, and what its answer cannot show.
"""
