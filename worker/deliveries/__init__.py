"""The delivering process: takes webhooks that are due, sends them, writes down what came of it. Knows no model."""
