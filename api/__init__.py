"""The HTTP side: OpenAI's shapes over jobs. Knows no models, no Celery tasks; keeps no state of a job."""
