"""Runs jobs: media, prompt, engine process, stream, end. Importing it loads no torch."""
