"""Pixels and tokens in, tokens out. Knows nothing of jobs, Celery, Redis, SQL or HTTP; importing it loads no torch."""
