"""What a job is and where it lives. Knows neither HTTP nor models."""
