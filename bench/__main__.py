"""`python -m bench`: every bench, one after the other. Each prints its own table."""

from bench import engine, path

if __name__ == "__main__":
    engine.main([])
    path.main([])
